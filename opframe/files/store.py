"""Bytes under a name on disk, for several processes at once.

Each entry is a file that appears by one rename, with a checksum in front, so that no reader ever takes half an
entry or a damaged one for data, also after a power cut. There is no database and no lock: this works on the
network file systems of clusters, where SQLite does not, and a folder that others write to cannot run code.
"""

from __future__ import annotations

import os
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from attrs import define, field

_CHECKSUM = 4  # bytes
_SHARE = 64  # a process looks at the folder after it has written this fraction of the limit


@define
class Store:
    """Entries in a folder; with a limit (bytes), those that were not used for longest go first.

    Up to eight processes that write at the same time stay within the limit.
    """

    folder: Path
    limit: int | None = None
    _unchecked: int = field(default=0, init=False)
    _writable: bool = field(default=True, init=False)

    def __attrs_post_init__(self) -> None:
        self._unchecked = self.limit or 0  # what earlier processes left is looked at with the first entry

    def get(self, name: str) -> bytes | None:
        """The entry of a name (hexadecimal), or None; one that is damaged is removed."""
        path = self._path(name)
        try:
            content = path.read_bytes()
        except OSError:  # not there, or on a disk that fails: it is fetched again either way
            return None
        data = content[_CHECKSUM:]
        with suppress(OSError):  # a folder that may only be read, or an entry that has just been removed
            if content[:_CHECKSUM] != _checksum(data):
                path.unlink()
                return None
            if self.limit is not None:
                os.utime(path)
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keep an entry. A folder that cannot be written is said once, then left alone: the data is here anyway."""
        if not self._writable:
            return
        path = self._path(name)
        partial = path.with_name(f"{name}.{os.getpid()}.{threading.get_ident()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.parent.mkdir(exist_ok=True)
            with partial.open("wb") as file:
                file.write(_checksum(data))
                file.write(data)
            os.replace(partial, path)
        except OSError as error:
            self._writable = False
            with suppress(OSError):
                partial.unlink()
            warnings.warn(f"{self.folder}: remote data is not kept here from now on ({error})", stacklevel=2)
        self._unchecked += len(data)
        if self.limit is not None and self._unchecked >= self.limit // _SHARE:
            self._unchecked = 0
            self._shrink(self.limit)

    def forget(self, name: str) -> None:
        """Remove an entry, if it is there and may be removed."""
        with suppress(OSError):
            self._path(name).unlink()

    def names(self, beginning: str) -> list[str]:
        """The names of entries that begin so, with two letters at least."""
        return [path.name for path in (self.folder / beginning[:2]).glob(f"{beginning}*") if "." not in path.name]

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name

    def _shrink(self, limit: int) -> None:
        """Remove the entries used longest ago. Leaves room for what other processes write before they look."""
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        if total <= limit - limit // 8:
            return
        for _, size, path in entries:
            if total <= limit - limit // 4:
                break
            with suppress(OSError):
                os.unlink(path)
            total -= size

    def _entries(self) -> Iterator[tuple[float, int, str]]:
        """When it was last used, its size and its path, for every file of the folder."""
        with suppress(FileNotFoundError):
            for folder in os.scandir(self.folder):
                for entry in os.scandir(folder):
                    with suppress(FileNotFoundError):  # another process was faster
                        status = entry.stat()
                        yield status.st_mtime, status.st_size, entry.path


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_CHECKSUM, "little")
