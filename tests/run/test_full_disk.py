"""A disk that is full and a run folder that is gone end a run in words, or leave out what nobody needs to go on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opframe.run.loggers import Loggers
from opframe_loggers import JsonLines, TensorBoard
from opframe_loggers.events import Events
from opframe_loggers.json_lines import Lines
from opframe_registry import RunInfo
from slow_support import Phase, start, wait_until_reached
from weights_support import Call


def test_where_the_report_cannot_be_written_the_run_says_what_is_saved_and_writes_it_later(
    experiment: Path, cli: Call
) -> None:
    run = experiment.parent / "run"
    words = ("run", experiment, "--set", "evaluation.figures=true")
    cli(*words, "--stop-at", "4")
    (run / "figures").write_text("in the way of a folder")
    refused = cli(*words, "--resume")
    assert refused.code == 2
    assert f"error: {run / 'figures'}: cannot be written or read (File exists); step 8 is saved" in refused.errors
    (run / "figures").unlink()
    assert cli(*words, "--resume").code == 0
    assert (run / "report.md").exists()


def test_a_run_whose_folder_is_removed_says_so_and_makes_no_new_one(experiment: Path) -> None:
    process = start(experiment, Phase(slow="opframe.mixture.loading:Windows.batch", how="briefly", after=2))
    wait_until_reached(experiment, process)
    run = experiment.parent / "run"
    shutil.rmtree(run)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"{run / 'checkpoints' / 'step-00000004'}: cannot be written ([Errno 2] No such file" in errors
    assert "Traceback" not in errors
    assert not run.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_loggers_on_a_full_disk_are_left_out_in_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    full = Path("/dev/full")
    loggers = Loggers(say=said.append)
    loggers.begin([JsonLines(), TensorBoard()], RunInfo(folder=tmp_path, title="", settings={}, step=0))
    loggers.log(1, "train", {"loss": 1.0})
    for live in loggers._live:
        logger = live.logger
        assert isinstance(logger, Lines | Events)
        logger._file.close()
        file: Any = full.open("w" if isinstance(logger, Lines) else "wb")
        logger._file = file
        if isinstance(logger, Events):
            logger._records._writer = file
    loggers.log(2, "train", {"loss": 1.0})
    loggers.image(2, "picture", np.zeros((4, 4, 3), np.uint8))
    assert said == [
        f"the logger {name} is left out from here on: No space left on device" for name in ("json_lines", "tensorboard")
    ]
    assert not loggers
    assert capfd.readouterr() == ("", "")
