"""HDF5 files, local ones by memory maps where they can be, remote ones by ranges of bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from opframe.files.cache import remote_cache
from opframe.files.location import (
    NOT_HDF5,
    Versions,
    dataset_names,
    explained,
    find_dataset,
    local_path,
)
from opframe.files.retries import redacted
from opframe.readers.remote_hdf5 import RemoteArray, RemoteHdf5
from opframe.readers.unchanged import Unchanged
from opframe_registry import DataError

if TYPE_CHECKING:
    from opframe.readers.stores import Array, Wanted

_Answer = TypeVar("_Answer")

_MAPS = 1024  # arrays of one file that are kept in mind


class Hdf5Store:
    """A local HDF5 file, all of whose contiguous arrays one memory map serves.

    A strided window of HDF5's own costs more than reading the whole trajectory. The file stays open from the first
    array on that is asked for, not from a question: no open file may be there when a process forks.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._file: h5py.File | None = None
        self._bytes: NDArray[np.uint8] | None = None
        self._opened: Unchanged | None = None
        self._maps: dict[str, Array] = {}  # to find an array takes longer than to read a small window of it

    def shapes(self, limit: int) -> dict[str, tuple[int, ...]]:
        return self.ask(lambda _, file: _shapes(file, limit), "shapes")

    def array(self, path: str) -> Array:
        if path in self._maps:
            return self._maps[path]
        with explained(self._url, NOT_HDF5):
            if self._file is None:
                self._opened = Unchanged(self._url)
                self._file = h5py.File(local_path(self._url), "r")
            found = find_dataset(self._url, self._file, path)
            offset = found.id.get_offset()
        if offset is None:
            array: Array = found  # not kept: as long as it is open, HDF5 keeps megabytes of what it has decoded
            return array
        while len(self._maps) >= _MAPS:
            del self._maps[next(iter(self._maps))]
        self._maps[path] = self._mapped(found, offset)
        return self._maps[path]

    def _mapped(self, found: h5py.Dataset, offset: int) -> Array:
        if self._bytes is None:
            self._bytes = np.memmap(local_path(self._url), dtype=np.uint8, mode="r").view(np.ndarray)
        piece = self._bytes[offset : offset + found.nbytes]
        if len(piece) < found.nbytes:
            raise DataError(f"{self._url}: shorter than its header says; truncated?")
        array: Array = piece.view(found.dtype).reshape(found.shape)
        return array

    def read(self, wanted: Sequence[Wanted]) -> list[NDArray[Any]]:
        if self._opened is not None:
            self._opened.check()
        return [self.array(path)[index] for path, index in wanted]

    def ask(self, question: Callable[[str, Any], _Answer], name: str) -> _Answer:
        with explained(self._url, NOT_HDF5), h5py.File(local_path(self._url), "r") as file:
            return question(self._url, file)

    def close(self) -> None:
        self._maps, self._bytes, self._opened = {}, None, None
        if self._file is not None:
            self._file.close()
            self._file = None


class RemoteHdf5Store:
    """A remote HDF5 file: its header by a handful of requests, kept on disk, its windows by about one each."""

    def __init__(self, url: str, versions: Versions) -> None:
        self._title = redacted(url)
        self._file = RemoteHdf5(url, remote_cache(), versions)

    def shapes(self, limit: int) -> dict[str, tuple[int, ...]]:
        return self.ask(lambda _, file: _shapes(file, limit), "contents")

    def array(self, path: str) -> RemoteArray:
        return self._file.array(path)

    def read(self, wanted: Sequence[Wanted]) -> list[NDArray[Any]]:
        return self._file.read(wanted)

    def ask(self, question: Callable[[str, Any], _Answer], name: str) -> _Answer:
        with explained(self._title, NOT_HDF5):
            return self._file.ask(lambda file: question(self._title, file), name)

    def close(self) -> None:
        self._file.close()


def _shapes(file: h5py.File, limit: int) -> dict[str, tuple[int, ...]]:
    shapes = {name: file[name].shape for name in dataset_names(file, limit)}
    return {name: shape for name, shape in shapes.items() if shape is not None}
