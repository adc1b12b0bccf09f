"""Where the numbers and pictures of a run go, as the experiment says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from attrs import evolve, field, frozen
from matplotlib.image import imread
from numpy.typing import NDArray

from opframe.config import building
from opframe.config.settings import Experiment
from opframe.config.structure import to_tables
from opframe_registry import Logger, OpframeError, RunInfo, RunLogger


@frozen
class _Live:
    component: Logger
    logger: RunLogger


@frozen(kw_only=True)
class Loggers:
    """The loggers of a run, of which one that fails is named once, and left out from then on; training goes on.

    Only the leading process has any.
    """

    say: Callable[[str], None] = lambda words: None
    _live: list[_Live] = field(factory=list, init=False)
    _runs: list[RunInfo] = field(factory=list, init=False)

    @property
    def images(self) -> bool:
        """Whether any of them takes pictures."""
        return any(each.component.images for each in self._live)

    def __bool__(self) -> bool:
        return bool(self._live)

    def begin(self, components: Sequence[Logger], run: RunInfo) -> None:
        """Begin, or go on with, the record of a run. Raises RunError or PluginError; those that began are closed."""
        self._runs[:] = [run]
        try:
            for component in components:
                self._live.append(_Live(component, building.build_logger(component, run)))
        except BaseException:
            self.close()
            raise

    def go_back(self, step: int) -> None:
        """Drop what was recorded beyond a step, as where a run is resumed from it. Raises RunError or PluginError."""
        components = [each.component for each in self._live]
        self.close()
        for run in tuple(self._runs):
            self.begin(components, evolve(run, step=step))

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Record named numbers of one step; `kind` is train, evaluation or test."""
        for each in tuple(self._live):
            self._carry_out(each, "log", lambda logger: logger.log(step, kind, values))

    def image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """Record a picture (height, width, 3)."""
        for each in tuple(self._live):
            if each.component.images:
                self._carry_out(each, "image", lambda logger: logger.image(step, name, image))

    def close(self) -> None:
        """Let all of them write what is still to be written."""
        for each in tuple(self._live):
            self._carry_out(each, "close", lambda logger: logger.close())
        self._live.clear()

    def _carry_out(self, each: _Live, method: str, call: Callable[[RunLogger], None]) -> None:
        try:
            with building.blamed(each.component, method):
                call(each.logger)
        except OpframeError as error:
            self._live.remove(each)
            cause = error.__cause__
            said = cause.strerror if isinstance(cause, OSError) and cause.strerror else error  # which is nobody's fault
            self.say(f"the logger {each.component.name} is left out from here on: {said}")


def open_loggers(experiment: Experiment, step: int, say: Callable[[str], None]) -> Loggers:
    """The loggers of an experiment, which go on from a step. Raises RunError or PluginError."""
    folder = Path(experiment.run.folder)
    loggers = Loggers(say=say)
    title = experiment.title or folder.name
    run = RunInfo(folder=folder, title=title, settings=to_tables(experiment), step=step)
    loggers.begin(experiment.loggers, run)
    return loggers


def log_figures(loggers: Loggers, step: int, folder: Path) -> None:
    """Hand the figures of the final report, which lie in a folder, to those that take pictures."""
    if loggers.images:
        for path in sorted(folder.glob("*.png")):
            pixels = imread(path)[..., :3]  # numbers from 0 to 1
            loggers.image(step, f"test/{path.stem}", np.round(255 * pixels).astype(np.uint8))
