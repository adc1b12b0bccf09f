"""A run folder has one run at a time, and anybody may have it once that has ended, however it did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from opframe.run.lock import locked
from opframe_registry import RunError

SLOW = Path(__file__).parents[1] / "slow_phase"
Command = Callable[..., subprocess.CompletedProcess[str]]


def living(experiment: Path) -> subprocess.Popen[bytes]:
    """A run that has saved steps, and now waits for a batch for a minute."""
    slow = {"SLOW": "opframe.mixture.source:Source.read", "HOW": "asleep", "AFTER": "20", "PYTHONPATH": str(SLOW)}
    slow["REACHED"] = str(experiment.parent / "reached")
    words = [sys.executable, "-m", "opframe", "run", str(experiment), "--set", "trainer.checkpoint_every=1"]
    with (experiment.parent / "said").open("wb") as said:
        process = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1", **slow}, stdout=said, stderr=said)
    deadline = time.monotonic() + 120
    while not (experiment.parent / "reached.0").exists():
        assert process.poll() is None, (experiment.parent / "said").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def test_a_folder_in_which_a_run_lives_is_refused_and_free_at_once_when_that_is_killed(
    experiment: Path, opframe: Command
) -> None:
    process = living(experiment)
    run = experiment.parent / "run"
    try:
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        for words in (("run", experiment), ("run", experiment, "--resume"), ("run", experiment, "--nproc", "2")):
            refused = opframe(*words)
            assert refused.returncode == 2, refused.stderr
            assert f"is in use by another run of opframe (process {process.pid})" in " ".join(refused.stderr.split())
            assert refused.stderr.count("error:") == 1
        assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    resumed = opframe("run", experiment, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "continuing from" in resumed.stdout


def test_a_lock_leaves_nothing_behind_and_takes_nothing_away(tmp_path: Path) -> None:
    with locked(tmp_path / "new" / "run"):
        assert (tmp_path / "new" / "run").is_dir()
        with pytest.raises(RunError, match=r"is in use .*choose another run\.folder"), locked(tmp_path / "new" / "run"):
            pass
    assert list((tmp_path / "new").iterdir()) == []
    with locked(tmp_path / "kept"):
        (tmp_path / "kept" / "file").touch()
    with locked(tmp_path / "kept"):
        pass
    assert (tmp_path / "kept" / "file").exists()


def test_what_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunError, match=r"run\.folder: .*file cannot be used \(.*\); choose another"),
        locked(tmp_path / "file"),
    ):
        pass
