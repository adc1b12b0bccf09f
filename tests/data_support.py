"""Pieces that tests of `opframe data` use: a small experiment with damage, and the command line in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attrs import frozen
from numpy.typing import NDArray

from opframe.cli.main import main
from support import EXPERIMENT, waves, write_prepared


@frozen
class Done:
    """What a command left: its exit code and what it printed."""

    returncode: object
    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command line in this process, in 80 columns."""

    def call(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["opframe", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        return Done(stopped.value.code, printed.out, printed.err)

    return call


def damaged() -> NDArray[np.float32]:
    """Ten trajectories, the last two for the test, with one fault of each kind."""
    data = waves(10, 12, 16)
    data[1, 2, 5, 7, 0] = np.nan
    data[2] = data[2][:, :, :1]
    data[3, :, :, 6:] = data[3, :, :, 5:6]
    data[4] *= 100
    data[9] = data[5]
    return data


def write_experiment(folder: Path, one: NDArray[np.float32], two: NDArray[np.float32] | None = None) -> Path:
    write_prepared(folder / "one.h5", one)
    write_prepared(folder / "two.h5", waves(6, 10, 16, channels=2) + 3 if two is None else two)
    path = folder / "experiment.toml"
    path.write_text(EXPERIMENT)
    return path
