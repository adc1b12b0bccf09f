"""Which components read what lies at a path, and as what: candidates in the order of their likelihood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import log2
from pathlib import Path
from typing import Any

import tomli_w
from attrs import evolve, frozen
from cattrs import Converter

from opframe.config.building import blamed, open_split
from opframe.config.structure import Problem, ProblemsError, make_converter, structure_table
from opframe.console import counted
from opframe.mixture.source import check_not_empty, frames_in_words
from opframe.readers.arrays import ArrayTrajectories
from opframe.readers.contents import Shapes, stated_axes
from opframe_registry import Catalog, DataError, Dataset, Metadata, Plugin, Split, Trajectories
from opframe_registry.component import summary

_KEPT = 10  # one of so many trajectories is kept for the test, if the files do not say which are
# What is usual: with less than this, a candidate is the less likely the farther it is from it.
_POINTS, _POINTS_OF_A_LINE, _FRAMES, _CHANNELS = 16, 256, 8, 8


@frozen(kw_only=True)
class Candidate:
    """A component that reads what lies at a path, and the settings with which it does.

    `sure`: the names of the arrays speak for it, and not their shapes alone. `metadata` is of all `trajectories`
    together, None where it cannot be opened, for a reason that `problem` says.
    """

    component: Dataset
    settings: Mapping[str, Any]
    sure: bool
    trajectories: int = 0
    metadata: Metadata | None = None
    axes: str = ""
    problem: str = ""

    @property
    def layout(self) -> str:
        """What the data look like."""
        return f"{self.component.name}: {summary(type(self.component)).rstrip('.')}"

    @property
    def words(self) -> str:
        """What the data are, so read: 48 trajectories of 20 frames on 64 x 64, 1 channel."""
        metadata = self.metadata
        if metadata is None:
            return self.problem
        grid = " x ".join(map(str, metadata.grid)) + (" points" if len(metadata.grid) == 1 else "")
        count = counted(self.trajectories, "trajectory")
        return f"{count} of {frames_in_words(metadata)} on {grid}, {counted(len(metadata.channels), 'channel')}"

    @property
    def snippet(self) -> str:
        """The table of a config that reads them."""
        return toml([{"type": self.component.name, **self.settings}])

    def own(self, others: Sequence[Candidate]) -> str:
        """The keys in which it differs from other candidates, as they stand in a config."""
        tables = [{"type": one.component.name, **one.settings} for one in others]
        keys = {"type": self.component.name, **self.settings}
        differing = {key: value for key, value in keys.items() if any(table.get(key) != value for table in tables)}
        return ", ".join(tomli_w.dumps({key: value}).strip() for key, value in differing.items() if key != "test")

    @property
    def oddity(self) -> float:
        """How unusual data would be that are read so, in powers of two."""
        metadata = self.metadata
        if metadata is None:
            return float("inf")
        grid = metadata.grid
        few = max(log2(_POINTS / min(grid)), 0.0) if len(grid) > 1 else max(log2(_POINTS_OF_A_LINE / grid[0]), 0.0)
        short = max(log2(_FRAMES / metadata.frames), 0.0)
        many = max(log2(len(metadata.channels) / _CHANNELS), 0.0)
        return log2(max(grid) / min(grid)) + few + short + many + (self.trajectories == 1)


def toml(tables: Sequence[Mapping[str, Any]], key: str = "datasets") -> str:
    """Tables of datasets as they stand in a config."""
    return "\n\n".join(f"[[{key}]]\n{tomli_w.dumps(table)}".strip() for table in tables)


def recognise(url: str, contents: Shapes, catalog: Catalog) -> list[Candidate]:
    """How the installed components read what lies there, likeliest first; if one is sure of it, only those that are.

    Raises DataError where a plugin's settings are wrong.
    """
    converter = make_converter(catalog)
    found = [
        candidate
        for plugin, item in catalog.offers(Dataset)
        if issubclass(item, Dataset)
        for candidate in _of_component(url, contents, plugin, item, converter)
    ]
    if sure := [_opened(candidate) for candidate in found if candidate.sure]:
        return sure
    return _likeliest_first(_as_stated(url, contents, [_opened(candidate) for candidate in found]))


def _of_component(
    url: str, contents: Shapes, plugin: Plugin, item: type[Dataset], converter: Converter
) -> Iterator[Candidate]:
    with blamed(item, "recognise"):
        answer = item.recognise(url, contents)
    sure = isinstance(answer, Mapping)
    for settings in (answer,) if isinstance(answer, Mapping) else answer or ():
        try:
            component: Dataset = structure_table(converter, item, dict(settings))
        except ProblemsError as error:
            raise DataError(f"plugin {plugin.name} recognises {url} with {_problems(error.problems)}") from None
        yield Candidate(component=component, settings=settings, sure=sure)


def _opened(candidate: Candidate) -> Candidate:
    """With what it reads; if the files do not say which trajectories are for the test, with a tenth kept for it."""
    component = candidate.component
    try:
        whole = _open(component, "test")
        check_not_empty(component, whole.metadata)
        count = whole.metadata.trajectories
    except DataError as error:
        return evolve(candidate, problem=str(error))
    chosen: dict[str, Any] = {}
    try:
        count += _open(component, "train").metadata.trajectories
    except DataError:  # a single trajectory, or not all is there: said where it is shown
        test = max(count // _KEPT, 1)
        if _opens(evolve(component, test=test)):
            component, chosen = evolve(component, test=test), {"test": test}
    return evolve(
        candidate,
        component=component,
        settings={**candidate.settings, **chosen},
        trajectories=count,
        metadata=whole.metadata,
        axes=whole.variables[0].axes if isinstance(whole, ArrayTrajectories) else "",
    )


def _open(component: Dataset, split: Split) -> Trajectories:
    return open_split(component, split, Path())


def _opens(component: Dataset) -> bool:
    try:
        _open(component, "train")
    except DataError:
        return False
    return True


def _as_stated(url: str, contents: Shapes, found: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that agree with what a file says itself of the axes of its array, if it does."""
    if len(contents) != 1 or len(found) < 2:
        return list(found)
    stated = stated_axes(url, next(iter(contents)))
    return [candidate for candidate in found if candidate.axes == stated] or list(found)


def _likeliest_first(found: Sequence[Candidate]) -> list[Candidate]:
    """Each candidate once, with the fewest settings, the least unusual first."""
    different: dict[object, Candidate] = {}
    for number, candidate in enumerate(sorted(found, key=lambda one: len(one.settings))):
        different.setdefault((candidate.axes, candidate.trajectories) if candidate.axes else number, candidate)
    return sorted(different.values(), key=lambda one: (one.oddity, len(one.settings)))


def _problems(problems: Sequence[Problem]) -> str:
    return "; ".join(f"{problem.place}: {problem.message}" for problem in problems)
