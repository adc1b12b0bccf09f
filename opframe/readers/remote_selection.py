"""Which elements `array[...]` asks for, and in which bytes they lie."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from types import EllipsisType

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from opframe.files.file import GAP

Key = int | slice | EllipsisType | tuple[int | slice | EllipsisType, ...]
Picked = tuple[range, ...]  # the indices along each axis, ascending


@frozen
class Selection:
    """The indices along each axis, and which axes go away because one index was given for them."""

    picked: Picked
    dropped: tuple[bool, ...]

    @classmethod
    def of(cls, key: Key, shape: tuple[int, ...]) -> Selection:
        """From what stands in the brackets: indices, slices with positive steps and an ellipsis. Raises IndexError."""
        items = list(key) if isinstance(key, tuple) else [key]
        missing = len(shape) - len(items) + sum(item is Ellipsis for item in items)
        if missing < 0 or sum(item is Ellipsis for item in items) > 1:
            raise IndexError(f"{key} does not fit an array of shape {shape}")
        at = next((place for place, item in enumerate(items) if item is Ellipsis), len(items))
        items[at : at + 1] = [slice(None)] * missing
        picked = tuple(_indices(item, size) for item, size in zip(items, shape, strict=True))
        return cls(picked, tuple(not isinstance(item, slice) for item in items))

    @property
    def shape(self) -> tuple[int, ...]:
        """How many elements along each axis, before axes go away."""
        return tuple(map(len, self.picked))

    @property
    def key(self) -> tuple[slice, ...]:
        """Slices for NumPy or h5py that keep every axis."""
        return tuple(slice(axis.start, axis.stop, axis.step) for axis in self.picked)

    def without_dropped(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """The array of `shape` without the axes that go away."""
        return array[tuple(0 if dropped else slice(None) for dropped in self.dropped)]


def _indices(item: object, size: int) -> range:
    if isinstance(item, slice):
        if item.step is not None and item.step < 1:
            raise IndexError(f"slices need a positive step, not {item.step}")
        return range(*item.indices(size))
    index = int(item.__index__())  # type: ignore[attr-defined]  # anything that can be an index, such as of NumPy
    if not -size <= index < size:
        raise IndexError(f"index {index} is outside of an axis of {size}")
    return range(index % size, index % size + 1)


@frozen
class Box:
    """A part of a selection that lies in one piece of the file.

    `offset` and `size` are its bytes, `shape` and `strides` (bytes) say how its elements lie in them, and `place`
    is where they go in the result.
    """

    offset: int
    size: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    place: tuple[int | slice, ...]


def boxes(
    picked: Picked, shape: tuple[int, ...], itemsize: int, offset: int, place: tuple[slice, ...]
) -> Iterator[Box]:
    """The pieces of a selection from an array of `shape` that lies in C order from `offset` on.

    `place` is where the selection goes in the result. What lies less than GAP apart is one piece: so a window that
    is strided over a small trajectory is read as one range, and one of far apart pieces as one range for each.
    """
    strides = [itemsize] * len(shape)
    for axis in reversed(range(len(shape) - 1)):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    steps = tuple(stride * indices.step for stride, indices in zip(strides, picked, strict=True))
    counts = tuple(map(len, picked))
    spans = [itemsize]  # bytes from the first to the last element, over the axes from each on
    for step, count in zip(reversed(steps), reversed(counts), strict=True):
        spans.insert(0, spans[0] + (count - 1) * step)
    apart = [axis for axis in range(len(shape)) if counts[axis] > 1 and steps[axis] - spans[axis + 1] > GAP]
    outer = apart[-1] + 1 if apart else 0
    start = offset + sum(indices.start * stride for indices, stride in zip(picked, strides, strict=True))
    for index in product(*map(range, counts[:outer])):
        at = start + sum(number * step for number, step in zip(index, steps, strict=False))
        where = tuple(slot.start + number for slot, number in zip(place, index, strict=False))
        yield Box(at, spans[outer], counts[outer:], steps[outer:], where + place[outer:])
