"""A run that is interrupted and continued ends with the same weights, to the last bit."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import Command
from support import assert_same_training, saved_state


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Run folders of uninterrupted runs, by number of processes; filled by the first test that needs one."""
    return {}


def run_straight(straight: dict[int, Path], experiment: Path, opframe: Command, processes: int) -> Path:
    if processes not in straight:
        done = opframe("run", experiment, "--nproc", processes, "--set", f"run.folder={experiment.parent / 'straight'}")
        assert done.returncode == 0, done.stderr
        straight[processes] = experiment.parent / "straight"
    return straight[processes]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("processes", [1, 2])
def test_resuming_gives_the_same_weights(
    straight: dict[int, Path], experiment: Path, opframe: Command, processes: int, workers: int
) -> None:
    reference = run_straight(straight, experiment, opframe, processes)
    options = ("--nproc", processes, "--set", f"data.workers={workers}")
    first = opframe("run", experiment, *options, "--stop-at", 4)
    assert first.returncode == 0, first.stderr
    assert "stopped at step 4, saved" in first.stdout
    second = opframe("run", experiment, *options, "--resume")
    assert second.returncode == 0, second.stderr
    assert_same_training(experiment.parent / "run", reference, 8)


def test_accumulated_parts_make_the_same_step_up_to_rounding(
    straight: dict[int, Path], experiment: Path, opframe: Command
) -> None:
    reference = saved_state(run_straight(straight, experiment, opframe, 1), 8)["model"]
    assert opframe("run", experiment, "--set", "trainer.accumulate=2").returncode == 0
    parts = saved_state(experiment.parent / "run", 8)["model"]
    for name, weight in reference.items():
        assert (weight - parts[name]).norm() <= 1e-4 * weight.norm() + 1e-6, name


def test_two_processes_make_the_same_steps_as_one_up_to_rounding(
    straight: dict[int, Path], experiment: Path, opframe: Command
) -> None:
    one, two = (saved_state(run_straight(straight, experiment, opframe, count), 8)["model"] for count in (1, 2))
    for name, weight in one.items():
        assert (weight - two[name]).norm() <= 1e-4 * weight.norm() + 1e-6, name


def test_another_number_of_processes_continues_and_says_what_differs(experiment: Path, opframe: Command) -> None:
    assert opframe("run", experiment, "--nproc", 2, "--stop-at", 4).returncode == 0
    done = opframe("run", experiment, "--resume")
    assert done.returncode == 0, done.stderr
    assert "written by 2 processes and continues on 1" in done.stdout


def start(experiment: Path) -> subprocess.Popen[str]:
    """A long run in a process of its own."""
    command = [sys.executable, "-m", "opframe", "run", str(experiment), "--set", "trainer.steps=400"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a file appears while the process lives."""
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_run_that_is_killed_or_interrupted_reaches_the_same_weights(experiment: Path, opframe: Command) -> None:
    steps = ("--set", "trainer.steps=400")
    assert (
        opframe("run", experiment, *steps, "--set", "run.folder=" + str(experiment.parent / "straight")).returncode == 0
    )
    killed = start(experiment)
    wait_for(experiment.parent / "run" / "checkpoints" / "step-00000020", killed)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    interrupted = subprocess.Popen(
        [sys.executable, "-m", "opframe", "run", str(experiment), *steps, "--resume"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wait_for(experiment.parent / "run" / "checkpoints" / "step-00000100", interrupted)
    interrupted.send_signal(signal.SIGINT)
    output, errors = interrupted.communicate(timeout=120)
    assert interrupted.returncode == 130, errors
    assert f"continue with: opframe run {experiment} --resume --set trainer.steps=400" in output.replace("\n", "")
    assert opframe("run", experiment, *steps, "--resume").returncode == 0
    assert_same_training(experiment.parent / "run", experiment.parent / "straight", 400)
    lines = (experiment.parent / "run" / "metrics.jsonl").read_text().splitlines()
    steps_logged = [(line["kind"], line["step"]) for line in map(json.loads, lines)]
    assert steps_logged == [*(("train", step) for step in range(2, 401, 2)), ("test", 400)]  # none is there twice


def test_no_space_while_saving_keeps_the_last_good_checkpoint(experiment: Path, opframe: Command) -> None:
    """A limit on file size stands in for a full disk: both make a write fail half-way."""
    assert opframe("run", experiment, "--stop-at", 4).returncode == 0
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # noqa: E731
    full = opframe("run", experiment, "--resume", preexec_fn=limit)
    assert full.returncode == 2
    assert "step-00000008: cannot be written" in full.stderr
    assert "step-00000004, is untouched" in full.stderr
    assert "Traceback" not in full.stderr
    run = experiment.parent / "run"
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000004"]
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 8  # the journal comes first: a checkpoint never lacks the numbers of its step
    assert opframe("run", experiment, "--resume").returncode == 0


def test_only_the_newest_checkpoints_and_the_best_are_kept(experiment: Path, opframe: Command) -> None:
    settings = ("trainer.checkpoint_every=1", "trainer.evaluate_every=4", "trainer.keep=2", "data.validation=1")
    options = [word for setting in settings for word in ("--set", setting)]
    assert opframe("run", experiment, *options, "--stop-at", 7).returncode == 0
    kept = sorted(path.name for path in (experiment.parent / "run" / "checkpoints").iterdir())
    assert kept == ["best.json", "step-00000004", "step-00000006", "step-00000007"]


def test_a_resumed_run_that_has_nothing_to_do_leaves_its_checkpoint_alone(experiment: Path, opframe: Command) -> None:
    assert opframe("run", experiment, "--stop-at", 4).returncode == 0
    mark = experiment.parent / "run" / "checkpoints" / "step-00000004" / "mark.json"
    before = mark.stat()
    assert opframe("run", experiment, "--resume", "--stop-at", 2).returncode == 0
    assert (mark.stat().st_ino, mark.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_damaged_checkpoint_is_named_and_the_one_before_can_be_used(experiment: Path, opframe: Command) -> None:
    assert opframe("run", experiment, "--set", "trainer.checkpoint_every=2", "--stop-at", 4).returncode == 0
    folder = experiment.parent / "run" / "checkpoints" / "step-00000004"
    for part in folder.glob("*.distcp"):
        part.write_bytes(part.read_bytes()[:100])
    damaged = opframe("run", experiment, "--resume")
    assert damaged.returncode == 2
    assert "step-00000004 is damaged" in damaged.stderr
    assert "Traceback" not in damaged.stderr
    shutil.rmtree(folder)
    assert opframe("run", experiment, "--resume").returncode == 0
