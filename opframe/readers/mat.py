"""Arrays of MATLAB files older than 7.3, read by scipy once and then as memory maps of NumPy files."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from opframe.files.atomic import appearing
from opframe.files.cache import cache_folder, remote_cache
from opframe.files.file import RemoteFile
from opframe.files.location import (
    NoArrayError,
    Versions,
    explained,
    is_local,
    local_path,
    missing,
    open_bytes,
    require_real,
)
from opframe.files.once import made_once
from opframe.files.refusal import on_refusal
from opframe.files.retries import redacted
from opframe.readers.npy import map_npy
from opframe_registry import DataError, did_you_mean

if TYPE_CHECKING:
    from opframe.readers.stores import Wanted

_Answer = TypeVar("_Answer")

_log = logging.getLogger(__name__)
_DAMAGED = "cannot be read as a MATLAB file; truncated or not MATLAB?"
_SMALL = 2**16  # bytes of an array that is read where it is, and not written to the cache
_PIECE = 64 * 2**20
_HEADER = 128
_TYPES: Mapping[str, str] = {
    "double": "f8", "single": "f4", "logical": "u1",
    **{f"{sign}int{bits}": f"{sign or 'i'}{bits // 8}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip
"""The types of MATLAB's classes of numbers. The others are cells, structures, objects, text and sparse matrices."""


@frozen
class MatArray:
    """An array of a MATLAB file, which is read when the first of its numbers is asked for."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    _load: Callable[[str], NDArray[Any]] = field(repr=False)

    def __getitem__(self, index: Any, /) -> NDArray[Any]:
        part: NDArray[Any] = self._load(self.name)[index]
        return part


class MatStore:
    """A MATLAB file of the format before 7.3. Those of 7.3 are HDF5, with axes reversed.

    An array of it is written once, as a NumPy file below OPFRAME_CACHE, which all processes share: scipy reads arrays
    whole, where a window is wanted. That takes as much memory as the array.
    """

    def __init__(self, url: str, versions: Versions) -> None:
        self._url, self._title, self._versions = url, redacted(url), versions
        self._loaded: dict[str, NDArray[Any]] = {}
        from scipy.io import whosmat  # half a second, which other formats need not wait for

        with explained(url, _DAMAGED), open_bytes(url, versions) as file:
            _check_length(file)
            found = whosmat(file)
        self._arrays = {
            name: MatArray(name, tuple(shape), np.dtype(_TYPES[kind]), self._load)
            for name, shape, kind in found
            if kind in _TYPES
        }

    def shapes(self, limit: int) -> dict[str, tuple[int, ...]]:
        """In MATLAB's order of axes."""
        return {name: self._arrays[name].shape for name in list(self._arrays)[:limit]}

    def array(self, path: str) -> MatArray:
        if path not in self._arrays:
            names = list(self._arrays)
            found = ", ".join(names) or "nothing"
            raise NoArrayError(f"{self._title}: {missing(path, 'array')}{did_you_mean(path, names)}; found: {found}")
        return self._arrays[path]

    def read(self, wanted: Sequence[Wanted]) -> list[NDArray[Any]]:
        return [self.array(path)[index] for path, index in wanted]

    def ask(self, question: Callable[[str, Any], _Answer], name: str) -> _Answer:
        return question(self._title, dict(self._arrays))

    def close(self) -> None:
        """Let go of the memory maps."""
        self._loaded = {}

    def _load(self, name: str) -> NDArray[Any]:
        if name not in self._loaded:
            array = self._arrays[name]
            small = prod(array.shape) * array.dtype.itemsize <= _SMALL
            kept = "" if small else self._fingerprint()
            self._loaded[name] = self._cached(name, kept) if kept else self._read(name, small)
        if not is_local(self._url):
            on_refusal(partial(self._forget, name))
        return self._loaded[name]

    def _forget(self, name: str) -> None:
        """Keep nothing of a remote file of which something was refused."""
        self._loaded.pop(name, None)
        remote = RemoteFile(self._url, remote_cache(), self._versions)
        if remote.kept:
            _kept_at(self._title, name, self._fingerprint()).unlink(missing_ok=True)
            remote.forget([(0, remote.identity.size)])

    def _cached(self, name: str, fingerprint: str) -> NDArray[Any]:
        """A memory map of the file that holds an array alone; written by the first process that needs it."""
        path = _kept_at(self._title, name, fingerprint)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with made_once(path):
                if not path.exists():
                    self._write(name, path)
        except OSError as error:
            raise DataError(
                f"{self._title}: '{name}' cannot be written to {path} ({error}); "
                "let OPFRAME_CACHE name a folder with room"
            ) from error
        return map_npy(str(path))

    def _write(self, name: str, path: Path) -> None:
        values = self._read(name, small=False)
        _log.warning("%s: '%s' is written once to %s, %.3g MB", self._title, name, path, values.nbytes / 1e6)
        with appearing(path) as begun, begun.open("wb") as file:
            np.save(file, values)

    def _read(self, name: str, small: bool) -> NDArray[Any]:
        """An array as the file has it, whole. Raises DataError where it is damaged, or of complex numbers."""
        from scipy.io import loadmat

        with explained(self._url, _DAMAGED), self._near(small) as file:
            values: NDArray[Any] = loadmat(file, variable_names=[name])[name]
        require_real(self._title, name, values.dtype)
        values.flags.writeable = False  # windows are views of it, as they are of a memory map
        return values

    @contextmanager
    def _near(self, small: bool) -> Iterator[BinaryIO]:
        """The file, open; a remote one of which much is read is fetched first, as scipy reads little at a time."""
        with open_bytes(self._url, self._versions) as file:
            if small or is_local(self._url):
                yield file
                return
            folder = cache_folder() / "matlab"
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with TemporaryFile(dir=folder) as copy:
                shutil.copyfileobj(file, copy, _PIECE)
                copy.seek(0)
                yield copy

    def _fingerprint(self) -> str:
        """A name for this version of the file; '' if the server does not tell one version from another."""
        if not is_local(self._url):
            remote = RemoteFile(self._url, remote_cache(), self._versions)
            return remote.name("matlab") if remote.kept else ""
        path = Path(local_path(self._url)).resolve()
        status = path.stat()
        return hashlib.sha256(f"{path}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()


def _kept_at(title: str, name: str, fingerprint: str) -> Path:
    return cache_folder() / "matlab" / f"{Path(title).stem}-{name}-{fingerprint[:16]}.npy"


def _check_length(file: BinaryIO) -> None:
    """Raises ValueError where a file of MATLAB 5 ends before its last element does: scipy looks at beginnings alone."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    order = {b"IM": "<", b"MI": ">"}.get(file.read(_HEADER)[126:])
    position = _HEADER if order else size
    while position < size:
        file.seek(position)
        tag = file.read(8)
        position += 8 + (struct.unpack(f"{order}4xI", tag)[0] if len(tag) == 8 else 0)
    file.seek(0)
    if position > size:
        raise ValueError(f"its last element ends at {position}, but it has {size} bytes")
