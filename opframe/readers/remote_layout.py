"""Where the data of an HDF5 dataset lies in its file, and how the bytes there become an array.

Contiguous data and chunks without filters are ranges of bytes. Chunks with filters are fetched whole and handed to HDF5
itself, in a file in memory, so that every filter works that h5py or hdf5plugin knows. The rest goes through h5py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Protocol
from uuid import uuid4

import h5py
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from opframe.files.file import Range
from opframe.files.location import require_filters
from opframe.readers.remote_selection import Box, Picked, Selection, boxes
from opframe_registry import DataError

Array = NDArray[np.generic]
Row = tuple[tuple[int, ...], int]  # where a chunk begins, and its row in the table
Ask = Callable[[Callable[[h5py.File], Array]], Array]  # has h5py answer from the remote file


@frozen(eq=False)
class Plan:
    """How a selection is read: the ranges of bytes it takes, and what makes the elements of them."""

    ranges: Sequence[Range]
    finish: Callable[[Sequence[memoryview]], Array]


class Layout(Protocol):
    """How one dataset is stored."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[np.generic]: ...

    def plan(self, selection: Selection) -> Plan:
        """How to read the selected elements, of `selection.shape`. Raises DataError, as does `finish`."""


@frozen(kw_only=True, eq=False)
class Contiguous:
    """One array from `offset` on; None if nothing was ever written."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fill: Array
    offset: int | None

    def plan(self, selection: Selection) -> Plan:
        if self.offset is None:
            return Plan([], lambda contents: np.full(selection.shape, self.fill))
        everything = tuple(slice(0, size) for size in selection.shape)
        parts = boxes(selection.picked, self.shape, self.dtype.itemsize, self.offset, everything)
        return _copying(list(parts), lambda: np.empty(selection.shape, self.dtype))


@frozen(kw_only=True, eq=False)
class ChunkTable:
    """The chunks that were written; `numbers` counts them through the grid of all chunks, ascending."""

    shape: tuple[int, ...]
    grid: tuple[int, ...]
    numbers: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    masks: NDArray[np.int64]  # which filters were left out

    def touched(self, picked: Picked) -> Iterator[Row]:
        """The chunks that a selection needs, as far as they were written."""
        along = [sorted({index // size for index in axis}) for axis, size in zip(picked, self.shape, strict=True)]
        places = np.array(list(product(*along)), dtype=np.int64)
        numbers = np.ravel_multi_index(tuple(places.T), self.grid)
        rows = np.searchsorted(self.numbers, numbers)
        for place, number, row in zip(places.tolist(), numbers, rows.tolist(), strict=True):
            if row < len(self.numbers) and self.numbers[row] == number:
                yield tuple(index * size for index, size in zip(place, self.shape, strict=True)), row


@frozen(kw_only=True, eq=False)
class PlainChunks:
    """Chunks that are arrays as they are."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fill: Array
    table: ChunkTable

    def plan(self, selection: Selection) -> Plan:
        parts: list[Box] = []
        for origin, row in self.table.touched(selection.picked):
            inside = [_within(*axis) for axis in zip(selection.picked, origin, self.table.shape, strict=True)]
            picked, place = tuple(axis for axis, _ in inside), tuple(slot for _, slot in inside)
            offset = int(self.table.offsets[row])
            parts.extend(boxes(picked, self.table.shape, self.dtype.itemsize, offset, place))
        return _copying(parts, lambda: np.full(selection.shape, self.fill))


@frozen(kw_only=True, eq=False)
class FilteredChunks:
    """Chunks that HDF5 has to decode; `properties` and `stored` are what makes a dataset like this one."""

    title: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    table: ChunkTable
    properties: h5py.h5p.PropDCID
    stored: h5py.h5t.TypeID

    def plan(self, selection: Selection) -> Plan:
        needed = list(self.table.touched(selection.picked))
        ends = self.table.offsets + self.table.sizes
        ranges = [(int(self.table.offsets[row]), int(ends[row])) for _, row in needed]
        return Plan(ranges, lambda contents: self._decode(selection, needed, contents))

    def _decode(self, selection: Selection, needed: Sequence[Row], contents: Sequence[memoryview]) -> Array:
        memory = sum(map(len, contents)) + 2**16
        try:
            with h5py.File(uuid4().hex, "w", driver="core", backing_store=False, block_size=memory) as file:
                self._write(file, needed, contents)
                return np.asarray(file["mirror"][selection.key])
        except OSError as error:
            raise DataError(f"{self.title} cannot be decoded; damaged where it is stored? ({error})") from error

    def _write(self, file: h5py.File, needed: Sequence[Row], contents: Sequence[memoryview]) -> None:
        """Make a dataset like this one that has the chunks that are needed.

        It is closed again, as HDF5 reads the chunk that was written last with the filters it had before.
        """
        space = h5py.h5s.create_simple(self.shape)
        mirror = h5py.h5d.create(file.id, b"mirror", self.stored, space, self.properties)
        for (origin, row), content in zip(needed, contents, strict=True):
            mirror.write_direct_chunk(origin, content, int(self.table.masks[row]))


@frozen(kw_only=True, eq=False)
class ThroughHdf5:
    """Anything else: compact, of variable length, virtual within the file, types that NumPy stores otherwise."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    ask: Ask

    def plan(self, selection: Selection) -> Plan:
        return Plan([], lambda contents: self.ask(lambda file: np.asarray(file[self.path][selection.key])))


def find_layout(file: h5py.File, path: str, title: str, ask: Ask) -> Layout:
    """Look up a dataset. Raises DataError, in which `title` stands for file and path."""
    dataset = file.get(path)
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise DataError(f"{title}: there is no such dataset, or nothing in it")
    properties, stored = dataset.id.get_create_plist(), dataset.id.get_type()
    _refuse_other_files(dataset, properties, title)
    common = {"shape": dataset.shape, "dtype": dataset.dtype}
    kind, variable = properties.get_layout(), dataset.dtype.hasobject
    plain = not variable and h5py.h5t.py_create(dataset.dtype, logical=True).equal(stored)
    if kind == h5py.h5d.CHUNKED and plain and properties.get_nfilters() == 0:
        return PlainChunks(**common, fill=np.asarray(dataset.fillvalue), table=_chunk_table(dataset))
    if kind == h5py.h5d.CHUNKED and not variable:
        require_filters(title, dataset)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_INCR)  # or the mirror would be as large as the dataset
        table = _chunk_table(dataset)
        return FilteredChunks(**common, title=title, table=table, properties=properties, stored=stored)
    if kind == h5py.h5d.CONTIGUOUS and plain:
        return Contiguous(**common, fill=np.asarray(dataset.fillvalue), offset=dataset.id.get_offset())
    return ThroughHdf5(**common, path=path, ask=ask)


def _chunk_table(dataset: h5py.Dataset) -> ChunkTable:
    shape = dataset.chunks
    grid = tuple(-(-size // chunk) for size, chunk in zip(dataset.shape, shape, strict=True))
    found: list[tuple[int, ...]] = []
    dataset.id.chunk_iter(lambda chunk: found.append((*chunk.chunk_offset, *chunk[1:])))
    rows = np.array(found, dtype=np.int64).reshape(len(found), len(shape) + 3)
    numbers = np.ravel_multi_index(tuple(rows[:, :-3].T // np.array(shape)[:, None]), grid) if found else rows[:, 0]
    rows, numbers = rows[np.argsort(numbers)], np.sort(numbers)
    masks, offsets, sizes = rows[:, -3:].T
    return ChunkTable(shape=shape, grid=grid, numbers=numbers, offsets=offsets, sizes=sizes, masks=masks)


def _refuse_other_files(dataset: h5py.Dataset, properties: h5py.h5p.PropDCID, title: str) -> None:
    """HDF5 gives fill values for data in other files where it does not find them."""
    others = [properties.get_external(number)[0].decode() for number in range(properties.get_external_count())]
    if dataset.is_virtual:
        others += [source.file_name for source in dataset.virtual_sources() if source.file_name != "."]
    if others:
        raise DataError(f"{title} lies in other files ({others[0]} ...), which cannot be found from a remote one")


def _within(axis: range, first: int, size: int) -> tuple[range, slice]:
    """The indices of an axis that lie in a chunk, counted from where it begins, and their places in the result."""
    low = max(0, -((axis.start - first) // axis.step))
    high = min(len(axis), -((axis.start - first - size) // axis.step))
    inside = axis[low:high]
    return range(inside.start - first, inside.stop - first, axis.step), slice(low, high)


def _copying(parts: Sequence[Box], start: Callable[[], Array]) -> Plan:
    """Fetch the boxes and put their elements where they go, in the array that `start` makes."""

    def finish(contents: Sequence[memoryview]) -> Array:
        result = start()
        for box, content in zip(parts, contents, strict=True):
            result[box.place] = np.ndarray(box.shape, result.dtype, buffer=content, strides=box.strides)
        return result

    return Plan([(box.offset, box.offset + box.size) for box in parts], finish)
