"""What a logger promises."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path
from typing import cast

import numpy as np

from opframe_registry.components import Logger
from opframe_registry.testing.promise import Case, Promise, require
from opframe_registry.training import RunInfo, RunLogger


def _begun(case: Case, name: str, step: int = 0) -> RunLogger:
    folder = case.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"title": "a run", "trainer": {"steps": 20}, "datasets": [{"type": "heat", "train": 4}]}
    info = RunInfo(folder=folder, title="a run", settings=settings, step=step)
    return cast("Logger", case.component).build(info)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def it_takes_numbers_of_every_kind(case: Case) -> None:
    """`log` takes any step, kind and names, which may differ from call to call, and numbers that are not finite."""
    logger = _begun(case, "numbers")
    logger.log(1, "train", {"loss": 0.5, "learning_rate": 1e-3})
    logger.log(2, "train", {"loss": nan, "gradient_norm": inf})
    logger.log(2, "evaluation", {"mean/full": 0.1, "one data set/model/step": -inf})
    logger.log(3, "test", {})
    logger.close()


def it_takes_pictures(case: Case) -> None:
    """`image` takes a picture (height, width, 3) of bytes, and does nothing where a logger says that it takes none."""
    logger = _begun(case, "pictures")
    logger.log(1, "train", {"loss": 0.5})
    picture = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    if type(cast("Logger", case.component)).images:
        logger.image(1, "evaluation/one", picture)
        logger.image(2, "evaluation/one", picture[:, :4])
    logger.close()


def a_run_goes_on_where_it_was(case: Case) -> None:
    """A run that is resumed from a step begins again without an error, and keeps what was recorded before."""
    logger = _begun(case, "resumed")
    for step in range(1, 7):
        logger.log(step, "train", {"loss": 1.0 / step})
    logger.close()
    before = _files(case.folder / "resumed")
    logger = _begun(case, "resumed", step=4)
    for step in range(5, 9):
        logger.log(step, "train", {"loss": 1.0 / step})
    logger.close()
    gone = [name for name in before if not (case.folder / "resumed" / name).exists()]
    require(not gone, f"{', '.join(gone)} is gone after a resume")


def closing_twice_does_no_harm(case: Case) -> None:
    """What is closed may be closed again."""
    logger = _begun(case, "closed")
    logger.log(1, "train", {"loss": 0.5})
    logger.close()
    logger.close()


PROMISES: tuple[Promise, ...] = (
    it_takes_numbers_of_every_kind,
    it_takes_pictures,
    a_run_goes_on_where_it_was,
    closing_twice_does_no_harm,
)
