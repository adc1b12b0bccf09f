"""A run folder has one run at a time, and anybody may have it once that has ended, however it did."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Command
from opframe.run.lock import locked
from opframe_registry import RunError
from slow_support import Phase, start, wait_until_reached

LIVING = Phase(slow="opframe.mixture.loading:Windows.batch", after=3, options=("trainer.checkpoint_every=1",))


def test_a_folder_in_which_a_run_lives_is_refused_and_free_at_once_when_that_is_killed(
    experiment: Path, opframe: Command
) -> None:
    process = start(experiment, LIVING)
    wait_until_reached(experiment, process)
    run = experiment.parent / "run"
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "opframe", "run", str(experiment)]
    try:
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        refusals = [opframe(*words) for words in (("run", experiment), ("run", experiment, "--resume"))]
        refusals.append(opframe("run", experiment, "--nproc", "2"))
        assert [refused.returncode for refused in refusals] == [2, 2, 2]
        refusals.append(subprocess.run([sys.executable, *torchrun], capture_output=True, text=True, timeout=120))
        for refused in refusals:
            assert f"is in use by another run of opframe (process {process.pid})" in " ".join(refused.stderr.split())
            assert refused.stderr.count("error: ") == 1
        assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    finally:
        process.kill()
        process.communicate()
    resumed = opframe("run", experiment, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "continuing from" in resumed.stdout


def test_a_lock_leaves_nothing_behind_and_takes_nothing_away(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with locked(folder):
        assert folder.is_dir()
        with pytest.raises(RunError, match=r"is in use .*choose another run\.folder"), locked(folder):
            pass
    assert list(tmp_path.iterdir()) == []
    with locked(folder):
        (folder / "file").touch()
    with locked(folder):
        pass
    assert (folder / "file").exists()


def test_what_is_no_folder_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(RunError, match=r"run\.folder: .*file cannot be used \(.*\); choose another"), locked(file):
        pass
