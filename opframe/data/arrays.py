"""Trajectories in stored arrays, whatever the order of their axes.

A layout is said in few words: which arrays there are, what their axes mean, and in which files. Axes are one letter
each: n trajectory, t time, c channel, x y z space, 1 for an axis of length one. Along an axis that an array does not
have it is constant: a field without t is the same in every frame, one without n the same in every trajectory.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from opframe.data.stores import Array, Stores
from opframe_registry import DataError, Metadata

SPACE = "xyz"


@frozen(kw_only=True)
class Variable:
    """One stored array and the channels it gives.

    `path` leads to it inside its file; `{n}` in it, or `{n:04d}`, is the number of a trajectory in that file.
    `channels` says how many channels it gives: the length of its axis c, or 1.
    """

    path: str
    axes: str
    channels: int = 1


@frozen(kw_only=True)
class Part:
    """A file, or a folder of arrays, and which of its trajectories are used: `count` of them from number `first` on."""

    url: str
    count: int = 1
    first: int = 0


@define
class ArrayTrajectories:
    """A dataset's live object over arrays. Files are opened when they are read and do not travel to other processes."""

    metadata: Metadata
    parts: Sequence[Part]
    variables: Sequence[Variable]
    stores: Stores = field(factory=Stores)
    _ends: tuple[int, ...] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._ends = tuple(accumulate(part.count for part in self.parts))

    def read(self, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
        """Frames [start, stop) as (T, C, *grid) float32. Raises DataError."""
        meta = self.metadata
        if not 0 <= trajectory < meta.trajectories or not 0 <= start < stop <= meta.frames:
            raise DataError(
                f"{self.parts[0].url}: trajectory {trajectory}, frames {start}..{stop} asked for, but there are "
                f"{meta.trajectories} trajectories of {meta.frames} frames"
            )
        index = bisect_right(self._ends, trajectory)
        part = self.parts[index]
        number = part.first + trajectory - (self._ends[index] - part.count)
        blocks = [self._read(part.url, number, variable, start, stop) for variable in self.variables]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)

    def _read(self, url: str, number: int, variable: Variable, start: int, stop: int) -> NDArray[np.float32]:
        path = variable.path.format(n=number)
        array = self.stores.array(url, path)
        self._check(url, path, array, variable)
        selection: dict[str, int | slice] = {"n": number, "1": 0, "t": slice(start, stop)}
        try:
            window = np.asarray(array[tuple(selection.get(axis, slice(None)) for axis in variable.axes)], np.float32)
        except OSError as error:
            raise DataError(f"{url}: trajectory {number} of '{path}' cannot be read; truncated? ({error})") from error
        return _ordered(window, [axis for axis in variable.axes if axis not in "n1"], stop - start)

    def _check(self, url: str, path: str, array: Array, variable: Variable) -> None:
        """Raises DataError unless the array has the axes and lengths that the metadata promise."""
        meta = self.metadata
        lengths = {"t": meta.frames, "c": variable.channels, "1": 1, **dict(zip(SPACE, meta.grid, strict=False))}
        expected = tuple(lengths.get(axis) for axis in variable.axes)
        agrees = len(expected) == len(array.shape) and all(
            want is None or have == want for want, have in zip(expected, array.shape, strict=False)
        )
        if not agrees:
            words = ", ".join("any" if want is None else str(want) for want in expected)
            raise DataError(
                f"{url}: '{path}' has shape {array.shape}, expected ({words}), axes {' '.join(variable.axes)}, "
                f"as in {self.parts[0].url}"
            )


def _ordered(window: NDArray[Any], axes: Sequence[str], frames: int) -> NDArray[Any]:
    """A window with its axes in the order t c x y z; one without t is repeated, one without c is one channel."""
    order = [axes.index(axis) for axis in ("t", "c", *SPACE) if axis in axes]
    window = window.transpose(order)
    if "t" not in axes:
        window = np.broadcast_to(window, (frames, *window.shape))
    return window if "c" in axes else window[:, None]
