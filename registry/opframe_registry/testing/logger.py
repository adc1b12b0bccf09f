"""What a logger promises."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path
from typing import cast

import numpy as np

from opframe_registry.components import Logger
from opframe_registry.testing.promise import Case, NotApplicableError, Promise, require
from opframe_registry.training import RunInfo, RunLogger

_MARK = 0.8437591  # a number that is nowhere else


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
    """A run that is resumed from a step begins again without an error, and no file of it is gone."""
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


def what_is_logged_is_recorded(case: Case) -> None:
    """What is written when a run is closed grows with what was logged."""
    sizes = []
    for name, steps in (("short", 1), ("long", 200)):
        before = _size(case.folder)
        logger = _begun(case, name)
        for step in range(1, steps + 1):
            logger.log(step, "train", {"loss": 1.0 / step, "gradient_norm": step / 7})
        logger.close()
        sizes.append(_size(case.folder) - before)
    if max(sizes) <= 0:
        raise NotApplicableError("it writes nothing into the run folder, or near it")
    require(sizes[1] > sizes[0] + 200, f"200 steps are recorded in {sizes[1]} bytes, a single one in {sizes[0]}")


def what_was_recorded_is_kept(case: Case) -> None:
    """A run that goes on from a step keeps the contents of what was recorded up to there."""
    before = _size(case.folder)
    logger = _begun(case, "kept")
    for step in range(1, 61):
        logger.log(step, "train", {"loss": 1.0 / step})
    logger.close()
    recorded = _size(case.folder) - before
    if recorded <= 0:
        raise NotApplicableError("it writes nothing into the run folder, or near it")
    _begun(case, "kept", step=60).close()
    left = _size(case.folder) - before
    require(left >= recorded, f"of {recorded} bytes that were recorded {left} are left after going on from that step")


def a_step_that_is_done_again_is_recorded_once(case: Case) -> None:
    """What was recorded beyond the step from which a run goes on is dropped, as it comes again."""
    logger = _begun(case, "again")
    for step in range(1, 7):
        logger.log(step, "train", {"loss": _MARK if step == 5 else 1.0})
    logger.close()
    first = _marks(case.folder)
    if not first:
        raise NotApplicableError("it writes no text in which the number could be found")
    logger = _begun(case, "again", step=4)
    for step in range(5, 7):
        logger.log(step, "train", {"loss": _MARK if step == 5 else 1.0})
    logger.close()
    again = _marks(case.folder)
    require(again == first, f"the number of step 5 is there {again} times after a resume from step 4, before {first}")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _marks(folder: Path) -> int:
    """How often the number stands in files of text, wherever below the folder."""
    found = 0
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            try:
                found += path.read_text(encoding="utf-8").count(str(_MARK))
            except UnicodeDecodeError:
                continue
    return found


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
    what_is_logged_is_recorded,
    what_was_recorded_is_kept,
    a_step_that_is_done_again_is_recorded_once,
    closing_twice_does_no_harm,
)
