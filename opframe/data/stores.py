"""Opened files, and the arrays in them.

A store is an opened file, or a folder of array files. What it gives for a path has a shape and a dtype and is indexed
with integers and slices. Arrays that lie contiguous in a local file are memory maps: a strided window of HDF5's own
costs more than reading the whole trajectory.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

import fsspec
import h5py
import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from opframe.data.remote.cache import RemoteCache
from opframe.data.remote.hdf5 import RemoteHdf5
from opframe.data.storage import explained, find_dataset, is_hdf5, is_local, local_path, open_hdf5
from opframe_registry import DataError, did_you_mean


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
        self._file = open_hdf5(url)
        self._bytes: NDArray[np.uint8] | None = None

    def array(self, path: str) -> Array:
        found = find_dataset(self._url, self._file, path)
        offset = found.id.get_offset()
        if offset is None or found.dtype.hasobject:
            array: Array = found
            return array
        return self._mapped(found, offset)

    def _mapped(self, found: h5py.Dataset, offset: int) -> Array:
        if self._bytes is None:
            self._bytes = np.memmap(local_path(self._url), dtype=np.uint8, mode="r")
        piece = self._bytes[offset : offset + found.nbytes]
        if len(piece) < found.nbytes:
            raise DataError(f"{self._url}: shorter than its header says; truncated?")
        array: Array = piece.view(found.dtype).reshape(found.shape)
        return array

    def close(self) -> None:
        self._bytes = None
        self._file.close()


class FolderStore:
    """A folder of NumPy files, or one such file under the path ''. Local ones are memory maps."""

    def __init__(self, url: str) -> None:
        self._url = url

    def array(self, path: str) -> Array:
        url = f"{self._url}/{path}" if path else self._url
        with explained(url):
            if is_local(url):
                mapped: Array = np.load(local_path(url), mmap_mode="r", allow_pickle=False)
                return mapped
            with fsspec.open(url, "rb") as file:
                loaded: Array = np.load(file, allow_pickle=False)
                return loaded

    def close(self) -> None:
        """Nothing is kept open but the arrays."""


class MatStore:
    """A MATLAB file of the format before 7.3, which is read whole. Those of 7.3 are HDF5, with axes reversed."""

    def __init__(self, url: str) -> None:
        from scipy.io import loadmat

        with explained(url), fsspec.open(url, "rb") as file:
            self._arrays: dict[str, Any] = loadmat(file)
        self._url = url

    def array(self, path: str) -> Array:
        if path not in self._arrays:
            names = [name for name in self._arrays if not name.startswith("__")]
            raise DataError(f"{self._url}: has no array '{path}'{did_you_mean(path, names)}; found: {', '.join(names)}")
        found: Array = self._arrays[path]
        return found

    def close(self) -> None:
        self._arrays = {}


class ZarrStore:
    """A Zarr group, or one array under the path ''. Remote ones are read through fsspec, chunk by chunk."""

    def __init__(self, url: str) -> None:
        try:
            import zarr
        except ImportError as error:
            raise DataError(f"{url}: Zarr is read by the package zarr; pip install 'opframe[zarr]'") from error
        self._url = url
        self._arrays: dict[str, Array] = {}  # what an array is like is read once, not for every window
        try:
            place = local_path(url) if is_local(url) else zarr.storage.FsspecStore.from_url(url, read_only=True)
            self._root = zarr.open(place, mode="r")
        except FileNotFoundError as error:
            raise DataError(f"{url}: no Zarr array or group is there") from error
        except (ImportError, ValueError, OSError) as error:
            raise DataError(f"{url}: cannot be read as Zarr ({error})") from error

    def array(self, path: str) -> Array:
        if path not in self._arrays:
            self._arrays[path] = self._find(path)
        return self._arrays[path]

    def _find(self, path: str) -> Array:
        import zarr

        if isinstance(self._root, zarr.Group):
            found = self._root.get(path) if path else None
        else:
            found = None if path else self._root
        if not isinstance(found, zarr.Array):
            raise DataError(f"{self._url}: has no array '{path}'; found: {self._contents()}")
        return cast(Array, found)

    def _contents(self) -> str:
        import zarr

        if not isinstance(self._root, zarr.Group):
            return "one array, to be read without a path"
        members = self._root.members(max_depth=None)
        return ", ".join(sorted(name for name, item in members if isinstance(item, zarr.Array))) or "nothing"

    def close(self) -> None:
        """Chunks are opened one at a time, as they are read."""


def open_store(url: str) -> Store:
    """Open a file by its kind: MATLAB, NumPy, a folder of NumPy files, Zarr, or else HDF5. Raises DataError."""
    suffix = url.rstrip("/").rsplit(".", 1)[-1].lower()
    if suffix == "zarr":
        return ZarrStore(url)
    if suffix == "npy" or "." not in url.rsplit("/", 1)[-1]:
        return FolderStore(url)
    if suffix == "mat" and not is_hdf5(url):
        return MatStore(url)
    return Hdf5Store(url) if is_local(url) else RemoteHdf5(url, remote_cache())


@cache
def remote_cache() -> RemoteCache:
    """What this process keeps of remote files, below OPFRAME_CACHE or ~/.cache/opframe; connections are shared."""
    return RemoteCache(folder=Path(os.environ.get("OPFRAME_CACHE", "~/.cache/opframe")).expanduser() / "remote")


@define
class Stores:
    """Opened stores; when there are too many, the least recently used one is closed. A pickle leaves them behind."""

    limit: int = 64
    _open: dict[str, Store] = field(factory=dict, init=False, repr=False, eq=False)

    def __getstate__(self) -> tuple[int]:
        """Open handles do not survive a change of process."""
        return (self.limit,)

    def __setstate__(self, state: tuple[int]) -> None:
        (self.limit,) = state
        self._open = {}

    def array(self, url: str, path: str) -> Array:
        """An array of a file. Raises DataError."""
        return self._store(url).array(path)

    def read(self, url: str, wanted: Sequence[tuple[str, tuple[int | slice, ...]]]) -> list[NDArray[Any]]:
        """Parts of arrays of one file, each a path and what stands in the brackets. Raises DataError.

        Those of a remote file are fetched at the same time.
        """
        store = self._store(url)
        if isinstance(store, RemoteHdf5):
            return store.read(wanted)
        return [store.array(path)[index] for path, index in wanted]

    def _store(self, url: str) -> Store:
        store = self._open.pop(url, None)
        if store is None:
            while len(self._open) >= self.limit:
                self._open.pop(next(iter(self._open))).close()
            store = open_store(url)
        self._open[url] = store
        return store
