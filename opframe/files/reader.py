"""A remote file as Python reads files: for headers, and for formats that are read from front to back."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from opframe.files.file import RemoteFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BUFFER = 64 * 2**10  # headers are smaller; longer reads are not split


class _Raw(io.RawIOBase):
    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = (0, self._position, self._file.identity.size)[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, target: WriteableBuffer, /) -> int:
        view = memoryview(target).cast("B")
        stop = min(self._position + len(view), self._file.identity.size)
        length = max(stop - self._position, 0)
        if length:
            [view[:length]] = self._file.fetch([(self._position, stop)])
            self._position = stop
        return length


def reader(file: RemoteFile) -> io.BufferedReader:
    """The file, open for reading. Raises DataError if it is not there, then wherever something is read."""
    file.identity  # noqa: B018  # opens it
    return io.BufferedReader(_Raw(file), _BUFFER)
