"""Trajectories in stored arrays, whatever the order of their axes.

A layout is said in few words: which arrays there are, what their axes mean, and in which files. Axes are one letter
each: n trajectory, t time, c channel, x y z space, 1 for an axis of length one; cc are the two axes of a tensor, whose
components become channels. Along an axis that an array does not have it is constant: a field without t is the same in
every frame, one without n the same in every trajectory, one without y the same along y.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from opframe.files.location import explained, require_real
from opframe.readers.stores import Array, Stores, Wanted
from opframe_registry import DataError, Metadata

SPACE = "xyz"


@frozen(kw_only=True)
class Variable:
    """One stored array and the channels it gives.

    `path` leads to it inside its file; `{n}` in it, or `{n:04d}`, is the number of a trajectory in that file, `{group}`
    the group of its part.
    `channels` says how many channels it gives: the length of its axis c, the product of two of them, or 1.
    """

    path: str
    axes: str
    channels: int = 1


@frozen(kw_only=True)
class Part:
    """A file, or a folder of arrays, and which of its trajectories are used: `count` of them from number `first` on.

    `group` is where in the file its arrays are, if that is not the same for all files. `frames` is the length of their
    axis t, if that is not the trajectory's own, as where shorter trajectories are padded.
    """

    url: str
    count: int = 1
    first: int = 0
    group: str = ""
    frames: int | None = None


@define
class ArrayTrajectories:
    """A dataset's live object over arrays. Files are opened when they are read and do not travel to other processes.

    `checksums`, where a file has them, are BLAKE2b of 16 bytes of every trajectory as it is read.
    """

    metadata: Metadata
    parts: Sequence[Part]
    variables: Sequence[Variable]
    stores: Stores = field(factory=Stores)
    checksums: Sequence[bytes] = ()
    _ends: tuple[int, ...] = field(init=False, repr=False)
    _expected: tuple[tuple[int | None, ...], ...] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._ends = tuple(accumulate(part.count for part in self.parts))
        self._expected = self._promised(self.metadata.frames)

    def _promised(self, frames: int) -> tuple[tuple[int | None, ...], ...]:
        """What the metadata promise of the shape of every variable's array that has so many frames."""
        return tuple(self._lengths(variable, frames) for variable in self.variables)

    def _lengths(self, variable: Variable, frames: int) -> tuple[int | None, ...]:
        """None: any length."""
        meta = self.metadata
        components = round(variable.channels ** (1 / max(variable.axes.count("c"), 1)))
        lengths = {"t": frames, "c": components, "1": 1, **dict(zip(SPACE, meta.grid, strict=False))}
        return tuple(lengths.get(axis) for axis in variable.axes)

    def read(self, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
        """Frames [start, stop) as (T, C, *grid) float32. Raises DataError."""
        url, number, wanted = self.place(trajectory, start, stop)
        try:
            windows = self.stores.read(url, wanted)
        except Exception:
            with explained(url, f"trajectory {number} cannot be read; truncated or damaged?"):
                raise
        blocks = [
            self._channels(np.asarray(window, dtype=np.float32), variable, stop - start)
            for window, variable in zip(windows, self.variables, strict=True)
        ]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)

    def place(self, trajectory: int, start: int, stop: int) -> tuple[str, int, list[Wanted]]:
        """Where a window lies: in which file, as which trajectory of it, and in which parts of arrays.

        Raises DataError.
        """
        meta = self.metadata
        known = 0 <= trajectory < meta.trajectories
        if not known or not 0 <= start < stop <= meta.length(trajectory):
            there = (
                f"it has {meta.length(trajectory)}"
                if known and meta.lengths
                else (f"there are {meta.trajectories} trajectories of {meta.frames} frames")
            )
            raise DataError(
                f"{self.parts[0].url}: trajectory {trajectory}, frames {start}..{stop} asked for, but {there}"
            )
        index = bisect_right(self._ends, trajectory)
        part = self.parts[index]
        number = part.first + trajectory - (self._ends[index] - part.count)
        selection: dict[str, int | slice] = {"n": number, "1": 0, "t": slice(start, stop)}
        frames = part.frames or meta.length(trajectory)
        promised = self._expected if frames == meta.frames else self._promised(frames)
        wanted = [
            self._wanted(part, variable, expected, selection)
            for variable, expected in zip(self.variables, promised, strict=True)
        ]
        return part.url, number, wanted

    def _wanted(
        self, part: Part, variable: Variable, expected: tuple[int | None, ...], selection: dict[str, int | slice]
    ) -> Wanted:
        path = variable.path.format(n=selection["n"], group=part.group)
        self._check(part.url, path, self.stores.array(part.url, path), variable, expected)
        return path, tuple(selection.get(axis, slice(None)) for axis in variable.axes)

    def _channels(self, window: NDArray[np.float32], variable: Variable, frames: int) -> NDArray[np.float32]:
        """A window as it was read, as (T, c, *grid)."""
        axes = [axis for axis in variable.axes if axis not in "n1"]
        return _ordered(_merged(window, axes), list(dict.fromkeys(axes)), frames, self.metadata.grid)

    def _check(self, url: str, path: str, array: Array, variable: Variable, expected: tuple[int | None, ...]) -> None:
        """Raises DataError unless the array has the axes and lengths that the metadata promise."""
        agrees = len(expected) == len(array.shape) and all(
            want is None or have == want for want, have in zip(expected, array.shape, strict=False)
        )
        if not agrees:
            words = ", ".join("any" if want is None else str(want) for want in expected)
            raise DataError(
                f"{url}: '{path}' has shape {array.shape}, expected ({words}), axes {' '.join(variable.axes)}, "
                f"as in {self.parts[0].url}"
            )
        require_real(url, path, array.dtype)


def _merged(window: NDArray[Any], axes: Sequence[str]) -> NDArray[Any]:
    """A window in which the two axes of a tensor, if it has them, have become one."""
    if axes.count("c") < 2:
        return window
    first = axes.index("c")
    return window.reshape(*window.shape[:first], -1, *window.shape[first + 2 :])


def _ordered(window: NDArray[Any], axes: Sequence[str], frames: int, grid: tuple[int, ...]) -> NDArray[Any]:
    """A window with the axes t c x y z in this order; along those it does not have it is repeated, without c once."""
    wanted = ("t", "c", *SPACE[: len(grid)])
    window = window.transpose([axes.index(axis) for axis in wanted if axis in axes])
    missing = [place for place, axis in enumerate(wanted) if axis not in axes]
    if not missing:
        return window
    window = np.expand_dims(window, missing)
    return window if missing == [1] else np.broadcast_to(window, (frames, window.shape[1], *grid))
