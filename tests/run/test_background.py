"""Checkpoints that are written while training goes on: of their own step to the bit, whole or not there at all."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.checkpoint import state_dict_saver

from conftest import Command
from slow_support import Phase, start, wait_until_reached
from support import assert_same_training
from weights_support import Call

BACKGROUND = ("--set", 'trainer.save="background"')


def test_the_state_is_that_of_its_step_whatever_is_trained_meanwhile(
    experiment: Path, cli: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plain = experiment.parent / "run", state_dict_saver.save
    words = ("run", experiment, "--set", "trainer.steps=16", "--set", "trainer.keep=9", "--set", "trainer.log_every=1")
    assert cli(*words, "--set", f"run.folder={run.with_name('foreground')}").code == 0

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.3)
        return plain(*arguments, **options)

    monkeypatch.setattr(state_dict_saver, "save", slow)
    assert cli(*words, *BACKGROUND).code == 0
    for step in (4, 8, 12, 16):
        assert_same_training(run, run.with_name("foreground"), step)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    stalls = [line["save_stall"] for line in lines if "save_stall" in line]
    assert len(stalls) == 3
    assert stalls[0] < 0.3  # it did not wait for the first one
    writes = [line["save_seconds"] for line in lines if "save_seconds" in line]
    assert writes
    assert min(writes) > 0.3


def test_what_goes_wrong_in_the_background_is_said_and_what_was_there_stays(
    experiment: Path, cli: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plain, calls = experiment.parent / "run", state_dict_saver.save, []

    def full(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(*arguments, **options)

    monkeypatch.setattr(state_dict_saver, "save", full)
    refused = cli("run", experiment, *BACKGROUND)
    assert refused.code == 2
    assert f"{run / 'checkpoints' / 'step-00000008'}: cannot be written ([Errno 28] No space left" in refused.errors
    assert f"the last complete checkpoint, {run / 'checkpoints' / 'step-00000004'}, is untouched" in refused.errors
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000004"]
    assert cli("run", experiment, *BACKGROUND, "--resume").code == 0


def test_a_kill_while_one_is_written_leaves_the_one_before(experiment: Path, cli: Call) -> None:
    run = experiment.parent / "run"
    assert cli("run", experiment, "--set", f"run.folder={run.with_name('undisturbed')}").code == 0
    options = ('trainer.save="background"', "trainer.checkpoint_every=2")
    phase = Phase(slow="opframe.run.checkpoint:Checkpoints._finish", after=1, options=options)
    process = start(experiment, phase)
    wait_until_reached(experiment, process)
    assert any((run / "checkpoints" / "step-00000004.partial").iterdir())
    assert "being written" in cli("checkpoints", run).output
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert sorted(path.name for path in (run / "checkpoints").glob("step-*[0-9]")) == ["step-00000002"]
    assert cli("run", experiment, *BACKGROUND, "--resume").code == 0
    assert_same_training(run, run.with_name("undisturbed"), 8)


@pytest.mark.fault
def test_several_processes_write_in_the_background_as_they_do_in_the_foreground(
    experiment: Path, opframe: Command
) -> None:
    run = experiment.parent / "run"
    words = ("run", experiment, "--nproc", 2, "--set", 'parallel.strategy="fsdp"', "--set", "trainer.keep=9")
    assert opframe(*words, "--set", f"run.folder={run.with_name('foreground')}").returncode == 0
    done = opframe(*words, *BACKGROUND)
    assert done.returncode == 0, done.stderr
    for step in (4, 8):
        assert_same_training(run, run.with_name("foreground"), step)
