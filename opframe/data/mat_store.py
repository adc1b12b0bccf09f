"""Arrays of MATLAB files older than 7.3 as memory maps: of the file itself, or of a copy where it is compressed."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from opframe.data.matlab import MatVariable, pieces, variables
from opframe.data.remote.cache import cache_folder, remote_cache
from opframe.data.remote.file import RemoteFile
from opframe.data.remote.retries import redacted
from opframe.data.storage import NoArrayError, Versions, is_local, local_path, missing, open_bytes
from opframe_registry import DataError, did_you_mean

_log = logging.getLogger(__name__)


class MatStore:
    """A MATLAB file of the format before 7.3. Those of 7.3 are HDF5, with axes reversed.

    An array that is compressed, or in a remote file, is written once, as a NumPy file below OPFRAME_CACHE, which all
    processes share.
    """

    def __init__(self, url: str, versions: Versions | None = None) -> None:
        self._url, self._title = url, redacted(url)
        self._versions: Versions = {} if versions is None else versions
        with self._opened() as file:
            self._variables = variables(file)
        self._arrays: dict[str, NDArray[Any]] = {}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the arrays, by name, in MATLAB's order of axes."""
        return {name: variable.shape for name, variable in self._variables.items()}

    def array(self, path: str) -> NDArray[Any]:
        """The array of a name. Raises DataError naming what is there instead."""
        if path not in self._variables:
            names = list(self._variables)
            found = ", ".join(names) or "nothing"
            raise NoArrayError(f"{self._title}: {missing(path, 'array')}{did_you_mean(path, names)}; found: {found}")
        if path not in self._arrays:
            self._arrays[path] = self._map(self._variables[path])
        return self._arrays[path]

    def small(self, path: str) -> NDArray[Any]:
        """The array of a name, read into memory. Raises DataError."""
        variable, content = self._variables[path], io.BytesIO()
        self._write(variable, content)
        return np.frombuffer(content.getvalue(), variable.dtype).reshape(variable.shape, order="F")

    def _map(self, variable: MatVariable) -> NDArray[Any]:
        if variable.nbytes == 0:
            return np.zeros(variable.shape, variable.dtype)
        if is_local(self._url) and not variable.compressed:
            path, offset = Path(local_path(self._url)), variable.element + variable.before
        elif self._fingerprint():
            path, offset = self._copy(variable), 0
        else:
            return self.small(variable.name)
        return np.memmap(path, variable.dtype, "r", offset, variable.shape, "F")

    def _copy(self, variable: MatVariable) -> Path:
        """The file that holds the numbers of an array alone; written by the first process that needs it."""
        folder = cache_folder() / "matlab"
        path = folder / f"{Path(self._title).stem}-{variable.name}-{self._fingerprint()[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _only_one(path.with_name(f"{path.name}.lock")):
                if not path.exists() or path.stat().st_size != variable.nbytes:
                    megabytes = variable.nbytes / 1e6
                    _log.warning("%s: '%s' is written once to %s, %.3g MB", self._title, variable.name, path, megabytes)
                    self._write_whole(variable, path)
        except OSError as error:
            raise DataError(
                f"{self._title}: '{variable.name}' cannot be written to {path} ({error}); "
                "let OPFRAME_CACHE name a folder with room"
            ) from error
        return path

    def _write_whole(self, variable: MatVariable, path: Path) -> None:
        partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            with partial.open("wb") as file:
                self._write(variable, file)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def _write(self, variable: MatVariable, target: BinaryIO) -> None:
        with self._opened() as file:
            for piece in pieces(file, variable):
                target.write(piece)

    def _fingerprint(self) -> str:
        """A name for this version of the file; '' if the server does not tell one version from another."""
        if not is_local(self._url):
            remote = RemoteFile(self._url, remote_cache(), self._versions)
            return remote.name("matlab") if remote.kept else ""
        path = Path(local_path(self._url)).resolve()
        status = path.stat()
        return hashlib.sha256(f"{path}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        with open_bytes(self._url, self._versions) as file:
            try:
                yield file
            except ValueError as error:
                raise DataError(
                    f"{self._title}: cannot be read as a MATLAB file; truncated or not MATLAB? ({error})"
                ) from error

    def close(self) -> None:
        """Let go of the memory maps."""
        self._arrays = {}


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Waits until no other thread or process is in here with the same path."""
    with path.open("w") as file:
        with suppress(ImportError, OSError):  # without locks some work may be done twice
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
