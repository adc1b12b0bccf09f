"""Checking, packing and statistics by several machines give what one machine gives; what is missing is named."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from data_support import damaged, write_experiment
from opframe.files.shards import Shard
from opframe_registry import DataError
from support import waves, write_prepared
from weights_support import Call

NORMALISED = ("--set", "normalizer.type=dataset")


def packed_in(folder: Path) -> dict[str, tuple[bytes, bytes, list[list[float]]]]:
    """Of each file: the data, the checksums, and the statistics."""
    found = {}
    for path in sorted(folder.rglob("*.h5")):
        with h5py.File(path) as file:
            statistics = [file[f"statistics/{name}"][:].tolist() for name in ("mean", "std", "min", "max")]
            found[str(path.relative_to(folder))] = file["data"][:].tobytes(), file["checksums"][:].tobytes(), statistics
    return found


def same_packed(one: Path, other: Path) -> None:
    left, right = packed_in(one), packed_in(other)
    assert left.keys() == right.keys()
    for name, (data, checksums, statistics) in left.items():
        assert right[name][:2] == (data, checksums)
        np.testing.assert_allclose(right[name][2], statistics, rtol=1e-14, atol=1e-15)


def learnt(cache: Path) -> dict[str, object]:
    """What the files of statistics hold, by their names."""
    return {
        path.name: json.loads(path.read_text())["state"]
        for path in sorted((cache / "statistics").iterdir())
        if path.suffix == ".json"
    }


def same_learnt(one: Path, other: Path) -> None:
    left, right = learnt(one), learnt(other)
    assert left.keys() == right.keys()
    assert left
    for name, state in left.items():
        for array, value in state.items():
            np.testing.assert_allclose(right[name][array]["values"], value["values"], rtol=1e-13)


def test_a_share_is_a_run_and_all_shares_are_everything() -> None:
    for tasks in (range(0), range(3), range(10)):
        for of in (1, 3, 4, 7):
            shares = [list(Shard(number, of).share(tasks)) for number in range(1, of + 1)]
            assert [task for share in shares for task in share] == list(tasks)
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("words", ["3", "0/4", "5/4", "1/0", "a/b", "-1/4", "1/4/2"])
def test_what_is_no_shard_is_refused(cli: Call, tmp_path: Path, words: str) -> None:
    done = cli("data", "check", tmp_path / "any.toml", f"--shard={words}")
    assert done.code == 2
    assert f"{words} is not a part of a number of parts, such as 3/16" in done.errors


def test_a_check_in_shards_says_what_one_process_says(tmp_path: Path, cli: Call) -> None:
    config, whole, shared = write_experiment(tmp_path, damaged()), tmp_path / "whole", tmp_path / "shared"
    assert cli("data", "check", config, "--out", whole).code == 2
    needs = cli("data", "check", config, "--shard", "1/3")
    assert (needs.code, "--shard needs --out FOLDER" in needs.errors) == (2, True)
    early = cli("data", "check", config, "--out", shared, "--merge")
    assert (early.code, "no shard has left anything for it" in early.errors) == (2, True)
    for number in (3, 1):
        done = cli("data", "check", config, "--out", shared, "--shard", f"{number}/3")
        assert (done.code, "trajectories of 16 looked at" in done.output) == (0, True)
    missing = cli("data", "check", config, "--out", shared, "--merge")
    assert (missing.code, "shard 2/3 is missing" in missing.errors) == (2, True)
    cli("data", "check", config, "--out", shared, "--shard", "2/3")
    assert cli("data", "check", config, "--out", shared, "--merge").code == 2
    assert sorted(path.name for path in shared.iterdir()) == ["check.json", "check.md"]
    left, right = (json.loads((folder / "check.json").read_text()) for folder in (whole, shared))
    assert [each.pop("channels") and each for each in left] == [each.pop("channels") and each for each in right]
    assert (shared / "check.md").read_text() == (whole / "check.md").read_text()


def test_shards_of_other_data_or_another_number_are_not_merged(tmp_path: Path, cli: Call) -> None:
    config, folder = write_experiment(tmp_path, waves(6, 12, 16)), tmp_path / "check"
    for number in (1, 2):
        cli("data", "check", config, "--out", folder, "--shard", f"{number}/2")
    write_prepared(tmp_path / "one.h5", 2 * waves(6, 12, 16))
    changed = cli("data", "check", config, "--out", folder, "--merge")
    assert (changed.code, "shards 1/2, 2/2 are missing, or of other data or settings" in changed.errors) == (2, True)
    cli("data", "check", config, "--out", folder, "--shard", "1/3")
    mixed = cli("data", "check", config, "--out", folder, "--merge")
    assert (mixed.code, "delete all but one of check.json.*-of-2 and check.json.*-of-3" in mixed.errors) == (2, True)
    (folder / "check.json.1-of-2").write_text("{")
    with pytest.raises(DataError, match=r"check\.json\.1-of-2: cannot be read .* delete it and do shard 1/2 again"):
        Shard(1, 2).left(folder / "check.json", "any")


def test_packing_in_shards_gives_the_same_file(tmp_path: Path, cli: Call) -> None:
    config, whole, shared = write_experiment(tmp_path, waves(7, 12, 16)), tmp_path / "whole", tmp_path / "shared"
    assert cli("data", "pack", config, whole).code == 0
    for number in (2, 9, *range(3, 9)):  # more shards than trajectories
        assert cli("data", "pack", config, shared, "--shard", f"{number}/9").code == 0
    missing = cli("data", "pack", config, shared, "--merge")
    assert (missing.code, "train.h5.partial: shard 1/9 is missing" in missing.errors) == (2, True)
    assert not list(shared.rglob("*.h5"))
    assert "shard 1/9 is written" in cli("data", "pack", config, shared, "--shard", "1/9").output
    assert "was there already" in cli("data", "pack", config, shared, "--shard", "1/9").output
    merged = cli("data", "pack", config, shared, "--merge")
    assert merged.code == 0, merged.errors
    assert 'type = "prepared"' in merged.output
    same_packed(whole, shared)
    assert not [path for path in shared.rglob("*") if path.is_file() and path.suffix != ".h5"]
    assert cli("data", "pack", config, shared, "--merge").code == 0  # again, it is there


def test_bytes_that_another_machine_wrote_over_are_found_and_their_shard_done_again(tmp_path: Path, cli: Call) -> None:
    config, folder = write_experiment(tmp_path, waves(6, 12, 16)), tmp_path / "packed"
    for number in (1, 2):
        cli("data", "pack", config, folder, "--shard", f"{number}/2")
    partial = folder / "one" / "train.h5.partial"
    with h5py.File(partial, "r+") as file:
        file["data"][-1, -1] = 7.0
    found = cli("data", "pack", config, folder, "--merge")
    assert found.code == 2
    assert "is read back otherwise than it was written" in found.errors
    assert "as --shard 2/2" in found.errors
    again = cli("data", "pack", config, folder, "--shard", "2/2")
    assert f"{partial.with_suffix('')}: shard 2/2 is written" in again.output
    assert cli("data", "pack", config, folder, "--merge").code == 0
    cli("data", "pack", config, tmp_path / "whole")
    same_packed(tmp_path / "whole", folder)


def test_what_is_done_is_not_done_again_and_a_killed_packing_goes_on(
    tmp_path: Path, cli: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, shard = write_experiment(tmp_path, waves(7, 12, 16)), ("--shard", "1/2")
    cache = (*NORMALISED, "--set", f"data.cache={tmp_path / 'cache'}")
    commands = (
        ("data", "check", config, "--out", tmp_path / "check"),
        ("data", "pack", config, tmp_path / "packed"),
        ("data", "statistics", config, *cache),
    )
    for words in commands:
        assert cli(*words, *shard).code == 0
    (left,) = (tmp_path / "packed" / "one").glob("train.h5.partial.*")
    left.unlink()  # as if it had been killed just before it was done
    for place in ("tools.health.examine", "tools.packing._read", "mixture.statistics._read"):
        monkeypatch.setattr(f"opframe.{place}", refused)
    for words in commands:
        assert cli(*words, *shard).code == 0
    assert left.exists()


def test_places_that_cannot_be_written_and_words_that_do_not_fit_are_said(tmp_path: Path, cli: Call) -> None:
    config = write_experiment(tmp_path, waves(6, 12, 16))
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "folder"
    for words in (
        ("check", config, "--out", inside, "--shard", "1/2"),
        ("pack", config, inside, "--shard", "1/2"),
        ("statistics", config, *NORMALISED, "--set", f"data.cache={inside}", "--shard", "1/2"),
    ):
        done = cli("data", *words)
        assert done.code == 2
        assert "cannot be written" in done.errors
        assert str(inside) in done.errors
        assert "Traceback" not in done.errors
    done = cli("data", "check", config, "--jobs", "2", "--dask", "tcp://nowhere:1")
    assert (done.code, "--jobs does not go with --dask" in done.errors) == (2, True)
    shared = cli("data", "check", config, "--out", tmp_path / "check", "--shard", "1/1", "--jobs", "2")
    assert shared.code == 0


def test_statistics_in_shards_are_those_of_one_process(tmp_path: Path, cli: Call) -> None:
    config = write_experiment(tmp_path, waves(6, 12, 16))
    one, other = ((*NORMALISED, "--set", f"data.cache={tmp_path / name}") for name in ("one", "other"))
    whole = cli("data", "statistics", config, *one)
    assert whole.code == 0, whole.errors
    assert "deviation" in whole.output
    cli("data", "statistics", config, *other, "--shard", "1/2")
    missing = cli("data", "statistics", config, *other, "--merge")
    assert (missing.code, "shard 2/2 is missing" in missing.errors) == (2, True)
    cli("data", "statistics", config, *other, "--shard", "2/2")
    merged = cli("data", "statistics", config, *other, "--merge")
    assert merged.output == "".join(line for line in whole.output.splitlines(True) if "preparing" not in line)
    same_learnt(tmp_path / "one", tmp_path / "other")
    assert not list((tmp_path / "other" / "statistics").glob("*-of-*"))
    nothing = cli("data", "statistics", config, "--set", "normalizer.type=none", "--set", f"data.cache={tmp_path}")
    assert nothing.output.strip() == "normalizer.type = 'none': there is nothing to compute"


@pytest.fixture
def cluster() -> Iterator[str]:
    """A scheduler and two workers, each a process of its own."""
    pytest.importorskip("distributed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads=1", "--no-dashboard"]
    running = [subprocess.Popen(words, stderr=subprocess.DEVNULL) for words in (scheduler, worker, worker)]
    try:
        yield address
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(20)


def refused(*words: object) -> None:
    raise AssertionError("read in this process")


def test_a_cluster_of_two_workers_does_what_one_process_does(
    tmp_path: Path, cli: Call, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_experiment(tmp_path, damaged())
    for name, words in (("one", ()), ("cluster", ("--dask", cluster))):
        if words:  # only the workers read: they have these modules as they are
            for place in ("tools.health.examine", "tools.packing._read", "mixture.statistics._read"):
                monkeypatch.setattr(f"opframe.{place}", refused)
        checked = cli("data", "check", config, "--out", tmp_path / f"check-{name}", *words)
        assert "3 of 16 trajectories are bad" in checked.output, checked.errors
        cache = (*NORMALISED, "--set", f"data.cache={tmp_path / f'cache-{name}'}")
        good = ("--set", "datasets.0.exclude=[1,2,5]")
        done = cli("data", "statistics", config, *cache, *good, *words)
        assert done.code == 0, done.errors
        bad = cli("data", "pack", config, tmp_path / f"packed-{name}", *words)
        assert (bad.code, "trajectory 1 holds nan in frame 7" in bad.errors) == (2, True)
        done = cli("data", "pack", config, tmp_path / f"packed-{name}", *good, *words)
        assert done.code == 0, done.errors
    left, right = ((tmp_path / f"check-{name}" / "check.md").read_text() for name in ("one", "cluster"))
    assert left == right
    same_packed(tmp_path / "packed-one", tmp_path / "packed-cluster")
    same_learnt(tmp_path / "cache-one", tmp_path / "cache-cluster")


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path, cli: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opframe.tools.work._PATIENCE", 0.5)
    done = cli("data", "check", write_experiment(tmp_path, waves(4, 12, 16)), "--dask", "tcp://127.0.0.1:9")
    assert done.code == 2
    assert "--dask tcp://127.0.0.1:9: no scheduler can be reached there" in done.errors
    assert "Traceback" not in done.errors
