"""Local files that are open for long, and must stay what they are."""

from __future__ import annotations

import os

from opframe.files.location import local_path
from opframe_registry import DataError


class Unchanged:
    """A local file as it was when it was opened.

    What is mapped of a file that becomes shorter ends the process (SIGBUS), and what is read of one that is written to
    is neither the old numbers nor the new ones. One question to the system tells, in about a microsecond.
    """

    def __init__(self, url: str) -> None:
        self._path = local_path(url)
        self._then = self._now()

    def check(self) -> None:
        """Raises DataError where the file has been cut off, replaced or written to."""
        now = self._now()
        if now == self._then:
            return
        if now is None:
            raise DataError(f"{self._path}: is gone, while it is read; put it back")
        if self._then is not None and now[0] != self._then[0]:
            what = f"has {now[0]} bytes, and had {self._then[0]} when it was opened"
        else:
            what = "has been replaced or written to since it was opened"
        raise DataError(f"{self._path}: {what}; put back the file of then, and leave data alone while they are read")

    def _now(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns, status.st_ino
