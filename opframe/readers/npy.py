"""NumPy files: local ones as memory maps, of remote ones the header is read, and then what is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from opframe.files.cache import remote_cache
from opframe.files.file import RemoteFile
from opframe.files.location import NoArrayError, Versions, explained, find_files, is_local, local_path
from opframe.files.retries import redacted
from opframe.readers.remote_npy import RemoteNpy, read_header
from opframe.readers.unchanged import Unchanged
from opframe_registry import DataError

if TYPE_CHECKING:
    from opframe.readers.stores import Array, Wanted

_Answer = TypeVar("_Answer")


class NpyStore:
    """A folder of NumPy files, or one such file under the path ''."""

    def __init__(self, url: str, versions: Versions) -> None:
        self._url, self._versions = url, versions
        self._arrays: dict[str, Array] = {}
        self._opened: dict[str, Unchanged] = {}

    def shapes(self, limit: int) -> dict[str, tuple[int, ...]]:
        return {path: tuple(self.array(path).shape) for path in self._paths()[:limit]}

    def _paths(self) -> list[str]:
        if self._url.lower().endswith(".npy"):
            return [""]
        return sorted(file.rsplit("/", 1)[-1] for file in find_files(self._url, "*.npy"))

    def array(self, path: str) -> Array:
        if path and self._url.lower().endswith(".npy"):
            place = redacted(self._url)
            raise NoArrayError(f"{place}: has no array '{path}'; found: one array, to be read without a path")
        if path not in self._arrays:
            url = f"{self._url}/{path}" if path else self._url
            if is_local(url):
                self._opened[path] = Unchanged(url)
            self._arrays[path] = self._open(url)
        return self._arrays[path]

    def _open(self, url: str) -> Array:
        return map_npy(url) if is_local(url) else RemoteNpy(RemoteFile(url, remote_cache(), self._versions))

    def read(self, wanted: Sequence[Wanted]) -> list[NDArray[Any]]:
        for path, _ in wanted:
            if path in self._opened:
                self._opened[path].check()
        return [self.array(path)[index] for path, index in wanted]

    def ask(self, question: Callable[[str, Any], _Answer], name: str) -> _Answer:
        return question(redacted(self._url), {path: self.array(path) for path in self._paths()})

    def close(self) -> None:
        self._arrays, self._opened = {}, {}


def map_npy(url: str) -> NDArray[Any]:
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
