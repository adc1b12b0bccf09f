"""What is in the file after all that can happen to a run."""

from __future__ import annotations

from math import inf, isnan, nan
from pathlib import Path

import numpy as np
import pytest
from opframe_csv import CSV
from opframe_csv.file import kept_rows

from opframe_registry import RunError, RunInfo, RunLogger


def logger(folder: Path, step: int = 0) -> RunLogger:
    return CSV().build(RunInfo(folder=folder, title="", settings={}, step=step))


def test_every_number_is_a_row(tmp_path: Path) -> None:
    log = logger(tmp_path)
    log.log(10, "train", {"loss": 0.1, "one, or two": 2})
    log.log(10, "evaluation", {"selected": 0.25})
    log.image(10, "roll-out", np.zeros((2, 2, 3), np.uint8))
    expected = 'step,kind,name,value\n10,train,loss,0.1\n10,train,"one, or two",2.0\n10,evaluation,selected,0.25\n'
    assert (tmp_path / "metrics.csv").read_text() == expected  # before it is closed
    log.close()
    assert (tmp_path / "metrics.csv").read_text() == expected


def test_numbers_come_back_as_they_were(tmp_path: Path) -> None:
    log = logger(tmp_path)
    values = {"third": 1 / 3, "small": 5e-324, "infinite": -inf, "none": nan}
    log.log(1, "train", values)
    log.close()
    read = {name: float(value) for _, _, name, value in kept_rows(tmp_path / "metrics.csv", 1)}
    assert isnan(read.pop("none"))
    assert read == {name: value for name, value in values.items() if name != "none"}


def test_a_resumed_run_goes_on_at_its_checkpoint(tmp_path: Path) -> None:
    log = logger(tmp_path)
    for step in (5, 10, 15):
        log.log(step, "train", {"loss": float(step)})
    log.close()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("20,train,lo")  # killed
    log = logger(tmp_path, step=10)
    log.log(15, "train", {"loss": 0.0})
    log.close()
    rows = kept_rows(tmp_path / "metrics.csv", 99)
    assert [(row[0], row[3]) for row in rows] == [("5", "5.0"), ("10", "10.0"), ("15", "0.0")]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RunError, match=r"metrics\.csv: its columns are \['a', 'b'\]"):
        logger(tmp_path)
    assert (tmp_path / "metrics.csv").read_text() == "a,b\n1,2\n"


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where a folder should be")
    with pytest.raises(RunError, match="cannot be written"):
        logger(tmp_path / "run")


@pytest.mark.parametrize("name", ["", "../metrics.csv", ".hidden"])
def test_a_name_is_one_in_the_run_folder(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a file"):
        CSV(file=name)
