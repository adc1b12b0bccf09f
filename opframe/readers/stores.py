"""Opened files, and the arrays in them.

A store is an opened file, or a folder of array files. What it gives for a path has a shape and a dtype and is indexed
with integers and slices.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from opframe.files.location import Versions, explained, is_hdf5, is_local, open_bytes, require_filesystem
from opframe.readers.hdf5 import Hdf5Store, RemoteHdf5Store
from opframe.readers.mat import MatStore
from opframe.readers.npy import NpyStore
from opframe.readers.zarr import ZarrStore

_Answer = TypeVar("_Answer")


class Array(Protocol):
    """Something with the axes of an array, of which parts are read by indexing."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, index: tuple[int | slice, ...], /) -> NDArray[Any]: ...


Wanted = tuple[str, tuple[int | slice, ...]]
"""A part of an array: its path in the file, and what stands in the brackets."""


class Store(Protocol):
    """A file or folder of one format. All of its methods raise DataError, which names it."""

    def shapes(self, limit: int) -> dict[str, tuple[int, ...]]:
        """The shapes of the first arrays by their paths; '' is the path of one that has none."""
        ...

    def array(self, path: str) -> Array:
        """The array at a path inside. Raises NoArrayError naming what is there instead."""
        ...

    def read(self, wanted: Sequence[Wanted]) -> list[NDArray[Any]]:
        """Parts of arrays; those of a remote file are fetched at the same time."""
        ...

    def ask(self, question: Callable[[str, Any], _Answer], name: str) -> _Answer:
        """What a question to the header gives; it gets the URL without credentials, and the header.

        That is the h5py.File of HDF5, the array or group of Zarr, and else the arrays by their paths. What is read of a
        remote file may be kept on disk under the name, and the question asked several times over; nothing of the
        header may be left in the answer.
        """
        ...

    def close(self) -> None: ...


def open_store(url: str, versions: Versions) -> Store:
    """The store of a file or folder, by its kind: MATLAB, NumPy, a folder of NumPy files, Zarr, or else HDF5.

    Of a remote file it is the version that `versions` names; one that is not yet there is added. Raises DataError.
    """
    if not is_local(url):
        require_filesystem(url)
    suffix = url.rstrip("/").rsplit(".", 1)[-1].lower()
    if suffix == "zarr":
        return ZarrStore(url)
    if suffix == "npy" or "." not in url.rsplit("/", 1)[-1]:
        return NpyStore(url, versions)
    if suffix == "mat" and not is_hdf5(url, versions):
        return MatStore(url, versions)
    return Hdf5Store(url) if is_local(url) else RemoteHdf5Store(url, versions)


@define
class Stores:
    """Opened stores; when there are too many, the least recently used one is closed. A pickle leaves them behind.

    All that is read of a remote file is of the version that was opened first, also after a pickle: what was learnt of
    a file when its reader was built holds for the windows that are read later.
    """

    limit: int = 64
    versions: Versions = field(factory=dict, init=False, repr=False, eq=False)
    _open: dict[str, Store] = field(factory=dict, init=False, repr=False, eq=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False, repr=False, eq=False)

    def __getstate__(self) -> tuple[int, Versions]:
        """Open handles do not survive a change of process."""
        return (self.limit, self.versions)

    def __setstate__(self, state: tuple[int, Versions]) -> None:
        self.limit, self.versions = state
        self._open, self._lock = {}, threading.Lock()

    def array(self, url: str, path: str) -> Array:
        """An array of a file. Raises DataError."""
        return self.store(url).array(path)

    def read(self, url: str, wanted: Sequence[Wanted]) -> list[NDArray[Any]]:
        """Parts of arrays of one file. Raises DataError."""
        return self.store(url).read(wanted)

    def ask(self, url: str, question: Callable[[str, Any], _Answer], name: str) -> _Answer:
        """What a question to a file's header gives, as `Store.ask` says. Raises DataError."""
        return self.store(url).ask(question, name)

    def content(self, url: str) -> bytes:
        """All bytes of a small file. Raises DataError."""
        with explained(url), open_bytes(url, self.versions) as file:
            return file.read()

    def store(self, url: str) -> Store:
        """The store of a file or folder. Raises DataError."""
        with self._lock:
            store = self._open.pop(url, None)
        # Without the lock, as it may wait for a server.
        store = open_store(url, self.versions) if store is None else store
        with self._lock:
            while len(self._open) >= self.limit:
                self._open.pop(next(iter(self._open))).close()
            self._open[url] = store
        return store
