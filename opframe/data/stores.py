"""Opened files, and the arrays in them.

A store is an opened file, or a folder of array files. What it gives for a path has a shape and a dtype and is indexed
with integers and slices. Arrays that lie contiguous in a local file are memory maps: a strided window of HDF5's own
costs more than reading the whole trajectory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import h5py
import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from opframe.data.mat_store import MatStore
from opframe.data.remote.cache import remote_cache
from opframe.data.remote.file import RemoteFile
from opframe.data.remote.hdf5 import RemoteHdf5
from opframe.data.remote.npy import RemoteNpy, read_header
from opframe.data.remote.retries import redacted
from opframe.data.storage import (
    NOT_HDF5,
    NoArrayError,
    Versions,
    explained,
    find_dataset,
    is_hdf5,
    is_local,
    local_path,
    open_bytes,
    require_filesystem,
    require_filters,
)
from opframe.data.zarr_store import ZarrStore
from opframe_registry import DataError

_Answer = TypeVar("_Answer")

_MAPS = 1024  # arrays of one file that are kept in mind


class Array(Protocol):
    """Something with the axes of an array, of which parts are read by indexing."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, index: tuple[int | slice, ...], /) -> NDArray[Any]: ...


class Store(Protocol):
    """An opened file or folder."""

    def array(self, path: str) -> Array:
        """The array at a path inside. Raises DataError naming what is there instead."""
        ...

    def close(self) -> None: ...


class Hdf5Store:
    """A local HDF5 file, all of whose contiguous arrays one memory map serves."""

    def __init__(self, url: str) -> None:
        self._url = url
        with explained(url, NOT_HDF5):
            self._file = h5py.File(local_path(url), "r")
        self._bytes: NDArray[np.uint8] | None = None
        self._maps: dict[str, Array] = {}  # to find an array takes longer than to read a small window of it

    def array(self, path: str) -> Array:
        if path in self._maps:
            return self._maps[path]
        with explained(self._url, NOT_HDF5):
            found = find_dataset(self._url, self._file, path)
            require_filters(self._url, found)
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

    def close(self) -> None:
        self._maps, self._bytes = {}, None
        self._file.close()


def map_npy(url: str) -> Array:
    """A memory map of the array of a local NumPy file. Raises DataError."""
    path = Path(local_path(url))
    with explained(url, "cannot be read as a NumPy file; truncated or not NumPy?"), path.open("rb") as file:
        header = read_header(file)
        if header.stop > path.stat().st_size:
            raise DataError(f"{url}: shorter than its header says; truncated?")
        if 0 in header.shape:  # of which there is nothing to map
            return np.zeros(header.shape, header.dtype)
        order: Literal["F", "C"] = "F" if header.turned else "C"
        return np.memmap(file, header.dtype, "r", header.offset, header.shape, order)


class FolderStore:
    """A folder of NumPy files, or one such file under the path ''.

    Local ones are memory maps; of remote ones the header is read, and then what is asked for.
    """

    def __init__(self, url: str, versions: Versions) -> None:
        self._url, self._versions = url, versions
        self._arrays: dict[str, Array] = {}

    def array(self, path: str) -> Array:
        if path and self._url.lower().endswith(".npy"):
            raise NoArrayError(
                f"{redacted(self._url)}: has no array '{path}'; found: one array, to be read without a path"
            )
        if path not in self._arrays:
            self._arrays[path] = self._open(f"{self._url}/{path}" if path else self._url)
        return self._arrays[path]

    def _open(self, url: str) -> Array:
        if not is_local(url):
            return RemoteNpy(RemoteFile(url, remote_cache(), self._versions))
        return map_npy(url)

    def close(self) -> None:
        self._arrays = {}


def open_store(url: str, versions: Versions) -> Store:
    """Open a file by its kind: MATLAB, NumPy, a folder of NumPy files, Zarr, or else HDF5. Raises DataError.

    Of a remote file it is the version that `versions` names; one that is not yet there is added.
    """
    if not is_local(url):
        require_filesystem(url)
    suffix = url.rstrip("/").rsplit(".", 1)[-1].lower()
    if suffix == "zarr":
        return ZarrStore(url)
    if suffix == "npy" or "." not in url.rsplit("/", 1)[-1]:
        return FolderStore(url, versions)
    if suffix == "mat" and not is_hdf5(url, versions):
        return MatStore(url, versions)
    return Hdf5Store(url) if is_local(url) else RemoteHdf5(url, remote_cache(), versions)


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

    def read(self, url: str, wanted: Sequence[tuple[str, tuple[int | slice, ...]]]) -> list[NDArray[Any]]:
        """Parts of arrays of one file, each a path and what stands in the brackets. Raises DataError.

        Those of a remote file are fetched at the same time.
        """
        store = self.store(url)
        if isinstance(store, RemoteHdf5):
            return store.read(wanted)
        return [store.array(path)[index] for path, index in wanted]

    def ask(self, url: str, question: Callable[[str, h5py.File], _Answer], name: str) -> _Answer:
        """What a question to an HDF5 file gives; it gets the URL without credentials and the file. Raises DataError.

        Of a remote file it may be asked several times over, and what HDF5 reads for it is kept on disk under a name:
        one that reads headers and small arrays costs a handful of requests the first time, and one later.
        """
        title = redacted(url)
        with explained(url, NOT_HDF5):
            if is_local(url):  # closed again: an open file must not be there when a process forks
                with h5py.File(local_path(url), "r") as file:
                    return question(title, file)
            require_filesystem(url)
            store = self._kept(url, lambda: RemoteHdf5(url, remote_cache(), self.versions))
            if not isinstance(store, RemoteHdf5):
                raise DataError(f"{title}: is not an HDF5 file")
            return store.ask(lambda file: question(title, file), name)

    def content(self, url: str) -> bytes:
        """All bytes of a small file. Raises DataError."""
        with explained(url), open_bytes(url, self.versions) as file:
            return file.read()

    def store(self, url: str) -> Store:
        """An opened file or folder. Raises DataError."""
        return self._kept(url, lambda: open_store(url, self.versions))

    def _kept(self, url: str, opened: Callable[[], Store]) -> Store:
        with self._lock:
            store = self._open.pop(url, None)
        store = opened() if store is None else store  # without the lock, as it may wait for a server
        with self._lock:
            while len(self._open) >= self.limit:
                self._open.pop(next(iter(self._open))).close()
            self._open[url] = store
        return store
