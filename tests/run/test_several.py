"""What goes wrong in one of several processes is said once, and what is trained is saved before."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from conftest import Command
from opframe.run.distributed import launch
from support import assert_same_training


def test_processes_save_before_an_error_in_the_data_that_one_of_them_finds_and_go_on_to_the_same_bits(
    experiment: Path, opframe: Command
) -> None:
    folder = experiment.parent
    words = ("run", experiment, "--nproc", "2", "--set", "evaluation.overlap=false", "--set", "trainer.steps=30")
    assert opframe(*words, "--set", f"run.folder={folder / 'undisturbed'}").returncode == 0
    shutil.copy(folder / "two.h5", folder / "kept.h5")
    with h5py.File(folder / "two.h5", "r+") as file:
        file["data"][3, :, :, 5:7] = np.nan
    refused = opframe(*words)
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.count("error: ") == 1
    assert "two: trajectory 3 holds nan in frame" in refused.stderr
    assert "Traceback" not in refused.stderr
    (saved,) = (folder / "run" / "checkpoints").iterdir()
    step = int(saved.name.removeprefix("step-"))
    assert 0 < step < 30
    assert f"the run is saved at step {step}, from where --resume goes on" in refused.stderr
    shutil.copy(folder / "kept.h5", folder / "two.h5")
    assert opframe(*words, "--resume").returncode == 0
    assert_same_training(folder / "run", folder / "undisturbed", 30)


def test_processes_that_diverge_say_so_once_and_do_not_begin_again(experiment: Path, opframe: Command) -> None:
    changed = ("optimizer.learning_rate=1e30", "trainer.clip=1e38", "schedule.div_factor=1")
    words = [word for each in changed for word in ("--set", each)]
    refused = opframe("run", experiment, "--nproc", "2", "--restarts", "2", *words)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: training diverged by step ")
    assert refused.stderr.count("\n") == 1
    assert "begin again" not in refused.stdout


@pytest.mark.parametrize("timeout", ["0s", "soon", "10"])
def test_a_timeout_that_is_no_duration_is_named(experiment: Path, opframe: Command, timeout: str) -> None:
    refused = opframe("check", experiment, "--set", f'trainer.timeout="{timeout}"')
    assert refused.returncode == 2
    assert f"trainer: timeout = '{timeout}' is no duration; write it as 11h50m, 90m or 2d" in refused.stderr


@pytest.mark.parametrize(("codes", "expected"), [((-6, 2), 2), ((2, 1), 2), ((1, -9), 1), ((-9, 1), 137)])
def test_a_mistake_of_one_process_goes_before_how_the_others_end(
    codes: tuple[int, int], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = {
        rank: ProcessFailure(local_rank=rank, pid=1, exitcode=code, error_file="none")
        for rank, code in enumerate(codes)
    }
    for failure in failures.values():
        failure.timestamp = int(failure.local_rank)  # the first of them ended first

    def failing(*words: object) -> object:
        raise ChildFailedError("train", failures)

    monkeypatch.setattr("opframe.run.distributed.elastic_launch", lambda *words: failing)
    assert launch(["run"], 2) == expected
