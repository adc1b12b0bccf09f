"""Making a file in a folder that several processes use: one makes it, the others wait, and find it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_log = logging.getLogger(__name__)


@contextmanager
def made_once(path: Path) -> Iterator[None]:
    """A context that one process at a time is in, for a file that is to be made in a folder, which is made if need be.

    The folder itself is locked, so that no file is left behind, and the system unlocks it with the end of a process.
    Who has waited looks whether the file is there. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # some filesystems have no such locks
            _lock(folder, path.parent)
        yield
    finally:
        os.close(folder)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log.warning("%s: another process makes something there; waiting for it", folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
