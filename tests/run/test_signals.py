"""Ctrl-C and SIGTERM end a run in whatever phase it is: at once, in words, with nothing half-written."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from opframe.signals import SIGNALS, deferred
from opframe.weights.runs import read_checkpoint
from servers import FileServer
from slow_support import Phase, start, wait_until_reached

PATIENCE = 8.0  # seconds to end: one that the program takes, and what a busy machine takes to do anything


PHASES = {
    "preparing": Phase(slow="opframe.run.assembly:prepare_data"),
    "opening": Phase(slow="opframe.run.assembly:open_sources", how="in_a_library"),
    "opening a file in a library that makes another error of it": Phase(
        slow="opframe.mixture.source:open_source", how="mistaking"
    ),
    "building the network": Phase(slow="opframe.run.assembly:build_backbone", how="swallowing"),
    "planning": Phase(slow="opframe_sampling.order:BalancedOrder.__call__", step=0),
    "reading the first batch": Phase(slow="opframe.mixture.loading:Windows.batch", step=0),
    "reading a batch": Phase(slow="opframe.mixture.loading:Windows.batch", after=2, step=2),
    "evaluating in training": Phase(
        slow="opframe.evaluation.protocol:Evaluator.read",
        options=("trainer.evaluate_every=3", "data.validation=2"),
        step=3,
    ),
    "evaluating at the end": Phase(slow="opframe.evaluation.protocol:Evaluator.read", how="in_a_library"),
    "reporting": Phase(slow="opframe.evaluation.report:verdict"),
}


def steps_saved(experiment: Path) -> list[str]:
    folder = experiment.parent / "run" / "checkpoints"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("name", PHASES)
def test_a_signal_ends_a_run_in_every_phase(experiment: Path, name: str) -> None:
    phase, number = PHASES[name], SIGNALS[list(PHASES).index(name) % len(SIGNALS)]
    process = start(experiment, phase)
    wait_until_reached(experiment, process)
    process.send_signal(number)
    sent = time.monotonic()
    output, errors = process.communicate(timeout=60)
    assert time.monotonic() - sent < PATIENCE
    assert process.returncode == 128 + number, errors
    if phase.step is None:
        assert errors == f"interrupted by {number.name}\n"
    else:
        assert errors == ""
        where = f"at step {phase.step}, saved" if phase.step else "before the first step"
        assert f"stopped {where}; continue with: opframe run" in output.replace("\n", "")
        assert steps_saved(experiment) == ([f"step-{phase.step:08d}"] if phase.step else [])
    assert list(experiment.parent.rglob("*.partial*")) == []


def test_a_terminal_that_is_closed_is_not_heard_of_by_what_is_to_outlive_it() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with deferred(lambda number: None):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert callable(signal.getsignal(signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_server_that_does_not_answer_is_not_waited_for(experiment: Path, server: FileServer) -> None:
    url = server.serve("one.h5", (experiment.parent / "one.h5").read_bytes())
    server.delay = 20.0
    process = start(experiment, Phase(slow="opframe.run.job:write_report", options=(f"datasets.one.url={url}",)))
    deadline = time.monotonic() + 120
    while not server.requests:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (143, "interrupted by SIGTERM\n")


def test_a_step_is_finished_and_saved_but_a_second_signal_ends_the_run_at_once(experiment: Path) -> None:
    phase = Phase(slow="opframe.run.trainer:Trainer.train_step", how="in_a_library", after=5)
    process = start(experiment, phase)
    wait_until_reached(experiment, process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # by whoever passes it on
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=2.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors == "interrupted by SIGINT\n"
    assert steps_saved(experiment) == ["step-00000004"]


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def lives(process: int) -> bool:
    """Whether a process is there, and not only its entry, which whoever inherits it may leave for a while."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(processes: list[int]) -> None:
    deadline = time.monotonic() + 30
    while any(map(lives, processes)):
        assert time.monotonic() < deadline, "orphans are left"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc to find processes in")
@pytest.mark.parametrize("whole_group", [True, False])
def test_processes_that_look_at_data_end_with_the_one_that_asks_them_to(experiment: Path, whole_group: bool) -> None:
    phase = Phase(slow="opframe.tools.health:examine", how="in_a_library")
    process = start(experiment, phase, "data", "check", "--jobs", "2")
    wait_until_reached(experiment, process)
    helpers = children(process)
    if whole_group:  # as a terminal does
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.kill()
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == (130 if whole_group else -signal.SIGKILL), errors
    assert not whole_group or errors == "interrupted by SIGINT\n"
    wait_until_gone(helpers)


PARALLEL = {
    "building the network": Phase(slow="opframe.run.assembly:check_grids"),
    # each process has read a batch ahead of the one that it trains on
    "training": Phase(slow="opframe.mixture.loading:Windows.batch", how="briefly", after=4, step=4),
    "evaluating in training": Phase(
        slow="opframe.evaluation.protocol:Evaluator.read",
        how="briefly",
        options=("trainer.evaluate_every=3", "data.validation=2"),
        step=3,
    ),
}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc to find processes in")
@pytest.mark.parametrize("name", PARALLEL)
def test_a_signal_ends_all_processes_of_a_run(experiment: Path, name: str) -> None:
    phase, number = PARALLEL[name], (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM)[list(PARALLEL).index(name)]
    process = start(experiment, phase, "run", "--nproc", "2")
    wait_until_reached(experiment, process, ranks=2)
    ranks = children(process)
    assert len(ranks) == 2
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert errors == ("" if phase.step else f"interrupted by {number.name}\n")
    assert (f"stopped at step {phase.step}, saved" in output) == bool(phase.step)
    assert steps_saved(experiment)[-1:] == ([f"step-{phase.step:08d}"] if phase.step else [])
    wait_until_gone(ranks)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a process that its parent is gone")
def test_processes_save_and_end_when_their_launcher_is_killed(experiment: Path) -> None:
    process = start(experiment, PARALLEL["training"], "run", "--nproc", "2")
    wait_until_reached(experiment, process, ranks=2)
    ranks = children(process)
    process.kill()
    process.communicate()
    wait_until_gone(ranks)
    assert steps_saved(experiment)[-1] == "step-00000004"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc to find processes in")
def test_a_process_that_is_stopped_hears_of_the_end_and_saves(experiment: Path) -> None:
    process = start(experiment, PARALLEL["training"], "run", "--nproc", "2")
    wait_until_reached(experiment, process, ranks=2)
    ranks = children(process)
    os.kill(ranks[0], signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert "stopped at step 4, saved" in output
    wait_until_gone(ranks)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc to find processes in")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_run_begins_again_where_one_of_its_processes_dies_or_hangs_and_has_the_same_weights(
    experiment: Path, number: signal.Signals
) -> None:
    options = ("trainer.checkpoint_every=2", "trainer.timeout=8s")
    phase = Phase(slow="opframe.mixture.loading:Windows.batch", how="briefly", after=5, options=options)
    process = start(experiment, phase, "run", "--nproc", "2", "--restarts", "1")
    wait_until_reached(experiment, process, ranks=2)
    hit = children(process)[1]
    os.kill(hit, number)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    if number == signal.SIGSTOP:
        assert f"process 1 (number {hit} on {socket.gethostname()}) does not answer in step " in errors
        assert errors.count("error: ") == 1
    assert "all begin again from the last checkpoint (1 of 1)" in output
    assert "Traceback" not in errors
    run = experiment.parent / "run"
    again = read_checkpoint(run / "checkpoints" / "step-00000008")
    run.rename(experiment.parent / "other")
    undisturbed = start(
        experiment, Phase(slow="opframe.run.job:write_report", after=9, options=options), "run", "--nproc", "2"
    )
    undisturbed.communicate(timeout=120)
    expected = read_checkpoint(run / "checkpoints" / "step-00000008")
    assert all(torch.equal(again[name], expected[name]) for name in expected)
