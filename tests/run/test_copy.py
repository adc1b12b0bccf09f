"""A run that is copied elsewhere goes on from there, to the same weights, when its own folder is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import fsspec
import pytest
import torch

from conftest import Command
from opframe.run.place import Place
from opframe.weights.checkpoints import steps_in
from opframe_registry import RunError
from servers import Bucket
from support import saved_state
from weights_support import Call

SHORT = ("trainer.steps=12", "trainer.log_every=1", "trainer.checkpoint_every=3", "trainer.keep=2")
SHORT = (*SHORT, "data.validation=1", "trainer.evaluate_every=6", "evaluation.overlap=false")


def words(experiment: Path, folder: Path, *more: str) -> list[object]:
    settings = [part for word in (*SHORT, f"run.folder={folder}", *more) if "=" in word for part in ("--set", word)]
    return ["run", experiment, *settings, *(word for word in more if "=" not in word)]


def same_weights(one: Path, other: Path, step: int = 12) -> None:
    left, right = saved_state(one, step)["model"], saved_state(other, step)["model"]
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_lost_run_folder_goes_on_from_a_bucket_to_the_same_weights(
    experiment: Path, cli: Call, bucket: Bucket
) -> None:
    url, run, straight = "s3://data/lost", experiment.parent / "run", experiment.parent / "straight"
    assert cli(*words(experiment, straight)).code == 0
    done = cli(*words(experiment, run, f"run.copy={url}", "--stop-at", "8"))
    assert done.code == 0, done.errors
    assert Place(url).steps() == [6, 8]
    listed = cli("checkpoints", url)
    assert [line.split()[0] for line in listed.output.splitlines()[1:]] == ["6", "8"]
    assert "best" in listed.output
    assert "latest" in listed.output
    shutil.rmtree(run)
    held = cli(*words(experiment, run, f"run.copy={url}"))
    assert held.code == 2
    assert "run.copy: s3://data/lost holds another run; go on with it in an empty run.folder by --resume" in held.errors
    shutil.rmtree(run)
    other = cli(*words(experiment, run, f"run.copy={url}", "optimizer.learning_rate=0.5", "--resume"))
    assert other.code == 2
    assert "s3://data/lost holds another experiment; it differs in\n  optimizer.learning_rate" in other.errors
    assert not (run / "config.toml").exists()
    again = cli(*words(experiment, run, f"run.copy={url}", "--resume"))
    assert again.code == 0, again.errors
    assert "step-00000008 comes from s3://data/lost" in again.output
    same_weights(straight, run)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines() if '"train"' in line]
    assert steps == list(range(1, 13))
    assert 12 in Place(url).steps()
    files = fsspec.filesystem("s3").ls("s3://data/lost", detail=False)
    assert {"data/lost/report.md", "data/lost/metrics.jsonl", "data/lost/config.toml"} <= set(files)
    fetched = cli("checkpoints", url, "--to", experiment.parent / "fetched")
    assert fetched.code == 0, fetched.errors
    same_weights(straight, experiment.parent / "fetched")
    nothing = cli("checkpoints", url, "--to", experiment.parent / "fetched")
    assert (nothing.code, "there is no checkpoint that" in nothing.errors) == (2, True)


def test_a_damaged_copy_is_said_and_the_one_before_used(experiment: Path, cli: Call) -> None:
    place, run, straight = experiment.parent / "copy", experiment.parent / "run", experiment.parent / "straight"
    assert cli(*words(experiment, straight)).code == 0
    assert cli(*words(experiment, run, f"run.copy={place}", "--stop-at", "12")).code == 0
    (file,) = (place / "checkpoints" / "step-00000012").glob("*.distcp")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    (place / "checkpoints" / "step-00000007").mkdir()
    (place / "checkpoints" / "step-00000007" / "half").write_text("never completed")
    shutil.rmtree(run)
    done = cli(*words(experiment, run, f"run.copy={place}", "--resume"))
    assert done.code == 0, done.errors
    assert "the checkpoint of step 12 is damaged" in done.output
    assert "comes from" in done.output
    same_weights(straight, run)
    assert not (place / "checkpoints" / "step-00000007").exists()
    shutil.rmtree(run)
    assert cli("checkpoints", place, "--to", run).code == 0
    same_weights(straight, run)


def test_what_is_kept_for_good_is_copied_and_what_is_brought_back_is_there_last(
    experiment: Path, cli: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, run = experiment.parent / "copy", experiment.parent / "run"
    settings = (f"run.copy={place}", "trainer.keep=1", "trainer.keep_every=6")
    assert cli(*words(experiment, run, *settings)).code == 0
    assert {6, 12} <= set(Place(str(place)).steps())
    assert steps_in(run / "checkpoints") == Place(str(place)).steps()
    shutil.rmtree(run)
    get = Place.get

    def failing(self: Place, names: Sequence[str], folder: Path) -> None:
        if "metrics.jsonl" in names:
            raise RunError("run.copy: the place is away")
        get(self, names, folder)

    monkeypatch.setattr(Place, "get", failing)
    held = cli(*words(experiment, run, *settings, "--resume"))
    assert (held.code, "the place is away" in held.errors) == (2, True)
    assert steps_in(run / "checkpoints") == []
    monkeypatch.undo()
    assert cli("checkpoints", place, "--to", run).code == 0
    assert steps_in(run / "checkpoints")[-1] == 12
    assert not [path for path in run.rglob("*") if path.name.startswith(".copy") or path.suffix == ".partial"]
    for mark in (place / "checkpoints").glob("step-*/mark.json"):
        mark.write_text("{}")
    none = cli("checkpoints", place, "--to", experiment.parent / "none")
    assert (none.code, "is sound" in none.errors, "Traceback" in none.errors) == (2, True, False)


def test_what_goes_wrong_with_a_copy_is_said_and_training_goes_on(
    experiment: Path, cli: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, run, put = experiment.parent / "copy", experiment.parent / "run", Place.put_checkpoint

    def failing(self: Place, path: Path) -> None:
        if path.name in ("step-00000003", "step-00000006"):
            raise RunError("run.copy: the place is away")
        put(self, path)

    monkeypatch.setattr(Place, "put_checkpoint", failing)
    done = cli(*words(experiment, run, f"run.copy={place}"))
    assert done.code == 0, done.errors
    assert "the place is away; training goes on, and the next checkpoint is copied again" in done.output
    assert Place(str(place)).steps()[-1] == 12


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9/run", "run.copy: http://127.0.0.1:9/run: cannot be"),
        ("nowhere://run", "run.copy: nowhere://run: cannot be read (ValueError: Protocol not known: nowhere)"),
        ("/proc/run", "run.copy: /proc/run: cannot be written"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_refused_before_training(
    experiment: Path, cli: Call, url: str, said: str
) -> None:
    done = cli(*words(experiment, experiment.parent / "run", f"run.copy={url}"))
    assert done.code == 2
    assert said in " ".join(done.errors.split())
    assert "Traceback" not in done.errors


@pytest.mark.fault
def test_two_processes_copy_and_go_on_in_an_empty_folder(experiment: Path, opframe: Command) -> None:
    place, run, straight = experiment.parent / "copy", experiment.parent / "run", experiment.parent / "straight"
    assert opframe(*words(experiment, straight, "--nproc", "2")).returncode == 0
    background = ("trainer.save=background", f"run.copy={place}")
    done = opframe(*words(experiment, run, *background, "--nproc", "2", "--stop-at", "8"))
    assert done.returncode == 0, done.stderr
    shutil.rmtree(run)
    done = opframe(*words(experiment, run, *background, "--nproc", "2", "--resume"))
    assert done.returncode == 0, done.stderr
    same_weights(straight, run)
