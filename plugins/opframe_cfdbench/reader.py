"""Trajectories cut from CFDBench's cases."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import TYPE_CHECKING

import numpy as np
import torch
from attrs import define, field, frozen
from numpy.typing import NDArray

from opframe.files.location import require_real
from opframe.mixture.resizing import resize, resize_known
from opframe.readers.splits import share
from opframe.readers.stores import Stores
from opframe_cfdbench.boundary import SIDES, obstacle, padded_grid, with_boundary
from opframe_cfdbench.cases import Case, find_cases
from opframe_registry import DataError, Metadata, Split

if TYPE_CHECKING:
    from opframe_cfdbench import CFDBench

_TIME_STEPS = {"cavity": 0.1, "tube": 0.1, "dam": 0.1, "cylinder": 0.001}
"""Seconds between two frames, from the published loaders."""


@frozen
class Piece:
    """A trajectory: its case, and the frame with which it begins."""

    case: Case
    first: int


@define
class CasePieces:
    """A dataset's live object over case folders. It opens files when they are read."""

    metadata: Metadata
    pieces: Sequence[Piece]
    stores: Stores = field(factory=Stores)

    def read(self, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
        """Frames [start, stop) as (T, 3, Y, X) float32; after the end of a case its last one. Raises DataError."""
        meta = self.metadata
        if not 0 <= trajectory < meta.trajectories or not 0 <= start < stop <= meta.frames:
            raise DataError(
                f"{meta.source}: trajectory {trajectory}, frames {start}..{stop} asked for, but there are "
                f"{meta.trajectories} trajectories of {meta.frames} frames"
            )
        piece = self.pieces[trajectory]
        case = piece.case
        low, high = (min(piece.first + frame, case.frames) for frame in (start, stop))
        low = min(low, case.frames - 1)
        u, v = (self._component(case, name, low, high) for name in "uv")
        frames = with_boundary(case.problem, u, v, case.parameters)
        frames = self._resized(frames, case)
        missing = stop - start - len(frames)
        return np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)]) if missing else frames

    def _resized(self, frames: NDArray[np.float32], case: Case) -> NDArray[np.float32]:
        """The frames on the grid of all, with NaN for the velocity where it is missing."""
        values, grid = torch.from_numpy(frames), self.metadata.grid
        if self.metadata.missing is None:
            return resize(values, grid).numpy()
        known = torch.ones(frames.shape, dtype=torch.bool)
        known[:, :2] = ~torch.from_numpy(obstacle(case.problem, case.grid, case.parameters))
        resized, known = resize_known(values, known, grid)
        return resized.masked_fill_(~known, nan).numpy()

    def _component(self, case: Case, name: str, low: int, high: int) -> NDArray[np.float32]:
        array = self.stores.array(case.url, f"{name}.npy")
        expected = (case.frames, *case.grid)
        if tuple(array.shape) != expected:
            raise DataError(f"{case.url}/{name}.npy: has shape {tuple(array.shape)}, expected {expected}, as in u.npy")
        require_real(f"{case.url}/{name}.npy", "", array.dtype)
        return np.asarray(array[slice(low, high), slice(None), slice(None)], np.float32)


def open_cfdbench(component: CFDBench, split: Split) -> CasePieces:
    """The trajectories of one split. Raises DataError naming the folder or file."""
    name = component.test_split if split == "test" else "train"
    stores = Stores()
    cases = find_cases(component, name, stores)
    if not cases:
        raise DataError(f"{component.title}: {component.url} holds too few cases for a part for '{name}'")
    pieces = [Piece(case, first) for case in cases for first in range(0, case.frames, component.frames)]
    part = share(component, split, component.url, len(pieces), separate=True)
    pieces = pieces[: part.count]
    steps = {_TIME_STEPS[case.problem] for case in cases}
    metadata = Metadata(
        trajectories=part.count,
        frames=component.frames,
        grid=_grid(component, cases),
        channels=("u", "v", "mask"),
        predicted=("u", "v"),
        boundary=_sides([case.problem for case in cases]),
        time_step=steps.pop() if len(steps) == 1 else None,
        source=f"CFDBench, {', '.join(dict.fromkeys(case.problem for case in cases))} (Luo, Chen and Zhang, 2023)",
        units=("m/s", "m/s", ""),
        parameters=_parameters(pieces),
        split=f"{part.words}; {_RULES[component.split_by]}, part '{name}'",
        vectors=(("v", "u"),),  # of the axes Y X
        spacing=_spacing(component, cases),
        missing=nan if component.obstacles == "missing" else None,
    )
    return CasePieces(metadata=metadata, pieces=pieces, stores=stores)


_RULES = {
    "case": "cases of each problem 80/10/10 at random, seed 0",
    "parameters": "groups of cases with the same parameters 80/10/10 at random, seed 0",
}


def _grid(component: CFDBench, cases: Sequence[Case]) -> tuple[int, ...]:
    """The grid of all trajectories, with the rows and columns added. Raises DataError where they differ."""
    if component.grid is not None:
        return component.grid
    found = {padded_grid(case.problem, case.grid): case for case in cases}
    if len(found) > 1:
        (one, first), (other, second), *_ = found.items()
        raise DataError(
            f"{component.title}: {first.url} has the grid {list(one)} with its boundary, but {second.url} has "
            f"{list(other)}; set 'grid', such as [64, 64], to resize all to one"
        )
    return next(iter(found))


def _parameters(pieces: Sequence[Piece]) -> dict[str, tuple[float, ...]]:
    """The numbers of the cases, for each trajectory, or once where they are the same; NaN where a case has none."""
    found = {}
    for name in dict.fromkeys(name for piece in pieces for name in piece.case.parameters):
        values = tuple(piece.case.parameters.get(name, nan) for piece in pieces)
        found[name] = values[:1] if len(set(values)) == 1 else values
    return found


def _sides(problems: Sequence[str]) -> tuple[str, ...]:
    """The boundaries of Y and X; unknown where those of several problems differ."""
    axes = zip(*(SIDES[problem] for problem in problems), strict=True)
    return tuple(words[0] if len(set(words)) == 1 else "unknown" for words in axes)


def _spacing(component: CFDBench, cases: Sequence[Case]) -> tuple[float, float] | None:
    """The distances of points along Y and X, which the cases may say, and which resizing changes."""
    found = {(case.parameters.get("dy"), case.parameters.get("dx")) for case in cases}
    native = all(component.grid in (None, padded_grid(case.problem, case.grid)) for case in cases)
    dy, dx = found.pop()
    return (dy, dx) if native and not found and dy is not None and dx is not None else None
