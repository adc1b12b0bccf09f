"""Checkpoints: no damaged byte is trained on, nothing of a stranger's runs, and what is sound is found."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import torch.distributed.checkpoint

from conftest import Command
from opframe import load_experiment, train
from opframe.weights.checkpoints import damage, mark_check, read_best, set_aside_damaged
from opframe.weights.location import WeightsError
from opframe.weights.runs import read_checkpoint
from opframe.weights.stored import load_stored
from opframe_registry import RunError
from support import waves, write_experiment, write_prepared

NEWEST, BEFORE = "step-00000008", "step-00000004"


def flip(path: Path, place: float, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)


def zeros(path: Path) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(2048) + content[middle + 2048 :])


def mark(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        said = json.loads((folder / "mark.json").read_text())
        del said["check"]
        change(said)
        (folder / "mark.json").write_text(json.dumps({**said, "check": mark_check(said)}))

    return write


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a low bit of a tensor": (lambda folder: flip(folder / "__0_0.distcp", 0.3), "has other bytes than were written"),
    "a high bit of a moment": (lambda folder: flip(folder / "__0_0.distcp", 0.8, 6), "other bytes than were written"),
    "two kilobytes of zeros": (lambda folder: zeros(folder / "__0_0.distcp"), "other bytes than were written"),
    "half a file": (lambda folder: os.truncate(folder / "__0_0.distcp", 1000), "has 1000 bytes instead of"),
    "no file": (lambda folder: (folder / "__0_0.distcp").unlink(), "__0_0.distcp cannot be read (No such file"),
    "flipped metadata": (lambda folder: flip(folder / ".metadata", 0.5), ".metadata has other bytes"),
    "empty metadata": (lambda folder: os.truncate(folder / ".metadata", 0), ".metadata has 0 bytes instead of"),
    "an empty mark": (lambda folder: os.truncate(folder / "mark.json", 0), "mark.json is empty"),
    "half a mark": (lambda folder: os.truncate(folder / "mark.json", 30), "mark.json cannot be read"),
    "a list for a mark": (lambda folder: (folder / "mark.json").write_text("[]"), "mark.json is no table"),
    "a bit of a mark": (lambda folder: flip(folder / "mark.json", 0.1), "mark.json "),
    "a bit of a name in a mark": (
        lambda folder: (folder / "mark.json").write_text((folder / "mark.json").read_text().replace("check", "chess")),
        "mark.json has other bytes than were written",
    ),
    "a mark of a newer version": (
        mark(lambda said: said.update(shards=3)),
        "was made by a newer opframe: it has 'shards'",
    ),
    "a mark without a step": (mark(lambda said: said.pop("step")), "mark.json is not whole"),
    "a checkpoint of another run": (mark(lambda said: said.update(run="other")), "is not of this run: it says other"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment and its run, which has two checkpoints."""
    folder = tmp_path_factory.mktemp("finished")
    write_experiment(folder)
    train(load_experiment(folder / "experiment.toml"), quiet=True)
    (folder / "run").rename(folder / "pristine")
    return folder


@pytest.fixture
def copy(finished: Path) -> Path:
    """That folder, with a run in which anything may be damaged."""
    shutil.rmtree(finished / "run", ignore_errors=True)
    shutil.copytree(finished / "pristine", finished / "run")
    return finished


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_refused_in_words_and_with_auto_the_one_before_is_used(copy: Path, name: str) -> None:
    spoil, expected = DAMAGE[name]
    spoil(copy / "run/checkpoints" / NEWEST)
    experiment = load_experiment(copy / "experiment.toml")
    with pytest.raises(RunError) as refused:
        train(experiment, resume=True, quiet=True)
    assert NEWEST in str(refused.value)
    assert expected in str(refused.value)
    if "another run" in name or "newer" in name:  # which is no damage
        with pytest.raises(RunError) as again:
            train(experiment, resume="auto", quiet=True)
        assert expected in str(again.value)
        return
    assert f"remove it to go on from {BEFORE}, or say --resume auto" in str(refused.value)
    assert train(experiment, resume="auto", quiet=True).step == 8
    assert (copy / "run/checkpoints" / f"{NEWEST}.damaged").is_dir()
    assert damage(copy / "run/checkpoints" / NEWEST) is None


def test_a_run_that_went_on_from_the_one_before_has_the_same_weights(copy: Path) -> None:
    flip(copy / "run/checkpoints" / NEWEST / "__0_0.distcp", 0.3)
    train(load_experiment(copy / "experiment.toml"), resume="auto", quiet=True)
    ours, theirs = (read_checkpoint(copy / name / "checkpoints" / NEWEST) for name in ("run", "pristine"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_auto_begins_where_there_is_no_run_and_ends_well_where_it_is_finished(
    experiment: Path, opframe: Command
) -> None:
    for said in ("8 steps of 4 samples", "continuing from"):
        done = opframe("run", experiment, "--resume", "auto")
        assert done.returncode == 0, done.stderr
        assert said in done.stdout


class Payload:
    """What a stranger would have run where it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.victim),)


def test_metadata_of_a_stranger_run_nothing(copy: Path) -> None:
    folder, victim = copy / "run/checkpoints" / NEWEST, copy / "victim"
    (folder / ".metadata").write_bytes(pickle.dumps(Payload(victim)))
    mark(lambda said: said.pop("files"))(folder)  # of a stranger, or of before
    with pytest.raises(RunError, match=r"cannot be read \(its metadata ask for posix\.mkdir, which no checkpoint has"):
        train(load_experiment(copy / "experiment.toml"), resume=True, quiet=True)
    with pytest.raises(WeightsError, match=r"its metadata ask for posix\.mkdir"):
        read_checkpoint(folder)
    assert not victim.exists()


def test_values_of_a_stranger_run_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    torch.distributed.checkpoint.save({"progress": {"step": Payload(victim)}}, checkpoint_id=tmp_path / "it")
    shutil.rmtree(victim, ignore_errors=True)
    with pytest.raises(WeightsError, match="it: cannot be read"):
        load_stored(tmp_path / "it", {"progress": {"step": 0}}, alone=True)
    assert not victim.exists()
    with contextlib.suppress(Exception):  # as torch reads it by itself, so that this tests something
        torch.distributed.checkpoint.load({"progress": {"step": 0}}, checkpoint_id=tmp_path / "it")
    assert victim.exists()


def test_a_network_of_another_shape_is_named_tensor_by_tensor(tmp_path: Path) -> None:
    torch.distributed.checkpoint.save(
        {"model": {"a": torch.ones(2), "b": torch.ones(3)}}, checkpoint_id=tmp_path / "it"
    )
    with pytest.raises(WeightsError, match=r"model\.a is \(2,\) there, \(4,\) here; model\.c is not there"):
        load_stored(tmp_path / "it", {"model": {"a": torch.ones(4), "c": torch.ones(3)}}, alone=True)


def test_a_damaged_note_of_the_best_is_made_up_for_by_the_checkpoints(copy: Path) -> None:
    folder = copy / "run/checkpoints"
    for name, error in ((BEFORE, 0.5), (NEWEST, 0.7)):
        mark(lambda said, error=error: said.update(error=error))(folder / name)
    (folder / "best.json").write_text('{"step": 4, "err')
    best = read_best(folder)
    assert best is not None
    assert (best.step, best.error) == (4, 0.5)


def test_checkpoints_are_set_aside_under_names_of_their_own(copy: Path) -> None:
    folder = copy / "run/checkpoints"
    for _ in range(2):
        shutil.copytree(folder / BEFORE, folder / NEWEST, dirs_exist_ok=True)
        os.truncate(folder / NEWEST / "mark.json", 0)
        assert len(set_aside_damaged(folder)) == 1
    assert {path.name for path in folder.glob("*.damaged*")} == {f"{NEWEST}.damaged", f"{NEWEST}.damaged-2"}


def test_the_checkpoints_of_a_run_are_listed_with_what_is_wrong(copy: Path, opframe: Command) -> None:
    folder = copy / "run/checkpoints"
    mark(lambda said: said.update(error=0.25))(folder / BEFORE)
    (folder / "best.json").write_text((folder / BEFORE / "mark.json").read_text())
    (folder / "step-00000012.partial").mkdir()
    listed = opframe("checkpoints", copy / "run", "--json")
    assert listed.returncode == 0, listed.stderr
    first, second, third = json.loads(listed.stdout)
    assert (first["step"], first["error"], first["roles"], first["wrong"]) == (4, 0.25, ["best"], None)
    assert (second["step"], second["roles"], second["processes"]) == (8, ["latest"], 1)
    assert (third["step"], third["wrong"]) == (12, "never completed")
    mark(lambda said: said.update(shards=3))(folder / NEWEST)
    assert "was made by a newer opframe" in opframe("checkpoints", copy / "run", "--json").stdout
    mark(lambda said: said.pop("shards"))(folder / NEWEST)
    assert first["bytes"] == sum(file.stat().st_size for file in (folder / BEFORE).iterdir())
    flip(folder / NEWEST / "__0_0.distcp", 0.5)
    table = opframe("checkpoints", copy / "run", env={"COLUMNS": "60"})
    assert "has other bytes than were" in " ".join(table.stdout.split())
    assert max(map(len, table.stdout.splitlines())) <= 60
    none = opframe("checkpoints", copy / "nowhere")
    assert (none.returncode, "there is no checkpoint in" in none.stderr) == (2, True)


def test_a_torn_or_damaged_journal_does_not_stop_a_resume(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    flip(copy / "run/checkpoints" / NEWEST / "mark.json", 0.0)
    journal = copy / "run/metrics.jsonl"
    sound = journal.read_bytes().splitlines(keepends=True)
    damaged = [sound[0], b'{"kind": "train"}\n', b"\xff\xfe\n", b"[]\n", *sound[1:2], sound[2][:20]]
    journal.write_bytes(b"".join(damaged))
    train(load_experiment(copy / "experiment.toml"), resume="auto", quiet=True)
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [record["step"] for record in records if record["kind"] == "train"] == [2, 4, 6, 8]
    assert "metrics.jsonl: 3 lines could not be read, and dropped" in caplog.text


def test_what_is_trained_is_saved_before_an_error_in_the_data_ends_it(experiment: Path, opframe: Command) -> None:
    with h5py.File(experiment.parent / "one.h5", "a") as file:
        file["data"][2, :, :, -1] = np.nan  # which few windows meet
    failed = opframe("run", experiment, "--set", "trainer.steps=60", "--set", "run.seed=1")
    assert failed.returncode == 2
    assert "one: trajectory 2 holds nan in frame 11" in failed.stderr
    newest = max((experiment.parent / "run/checkpoints").glob("step-*"))
    assert f"the run is saved at step {int(newest.name[5:])}, from where --resume goes on" in failed.stderr
    assert damage(newest) is None


def test_data_of_other_numbers_are_refused_and_a_copy_is_said_to_be_one(copy: Path, opframe: Command) -> None:
    def resumed() -> subprocess.CompletedProcess[str]:
        return opframe("run", copy / "experiment.toml", "--resume")

    os.utime(copy / "one.h5", ns=(0, 10**18))
    same = resumed()
    assert same.returncode == 0, same.stderr
    assert f"one: the files are others than when the run began ({copy / 'one.h5'}); what was" in same.stdout
    kept = (copy / "one.h5").read_bytes()
    try:
        write_prepared(copy / "one.h5", 2 * waves(6, 12, 16))
        other = resumed()
        assert other.returncode == 2
        assert "one: the data are others than those that this run was trained on so far" in other.stderr
    finally:
        (copy / "one.h5").write_bytes(kept)
    (copy / "run/data.json").write_text("{")
    assert "whether the data are those of then is not known" in resumed().stdout


def test_checkpoints_at_multiples_of_steps_are_kept_for_good(experiment: Path) -> None:
    changed = {"trainer.checkpoint_every": 1, "trainer.keep": 1, "trainer.keep_every": 3}
    train(load_experiment(experiment, changed), quiet=True)
    kept = sorted(path.name for path in (experiment.parent / "run/checkpoints").glob("step-*"))
    assert kept == ["step-00000003", "step-00000006", "step-00000008"]
