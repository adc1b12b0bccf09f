"""One run in a folder at a time, by a lock that the system drops when its process ends, however that comes about."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opframe_registry import RunError

if TYPE_CHECKING:
    from opframe.processes import Processes

if sys.platform != "win32":
    import fcntl

_LOCKS = Path("/proc/locks")
_TRIES, _GLANCE = 3, 0.05


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder. It is made if need be, with those above it, and they go again if nothing has come into them.

    The folder itself is locked, so that there is no file that a crash could leave behind. Where the system or the
    filesystem cannot lock folders (Windows, some network filesystems), nothing is held. Raises RunError where another
    process holds it, or it cannot be had.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    descriptor = _opened(folder)
    try:
        yield
    finally:
        with suppress(OSError):  # one is not empty
            for each in made:
                each.rmdir()
        os.close(descriptor)


@contextmanager
def held_by_leader(folder: Path, processes: Processes) -> Iterator[None]:
    """Hold a folder for all processes that train together. Raises RunError, in the leading one, as `locked` does."""
    with ExitStack() as stack:
        processes.let_leader(lambda: stack.enter_context(locked(folder)))
        yield


def _opened(folder: Path) -> int:
    """The descriptor of a folder that is locked. Raises RunError."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise RunError(
                f"run.folder: {folder} cannot be used ({error.strerror or error}); choose another"
            ) from error
        try:
            _lock(folder, descriptor)
            if _is(folder, descriptor):  # and has not been removed by who held it before
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(folder: Path, descriptor: int) -> None:
    if sys.platform == "win32":
        return
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_GLANCE)  # it may be `holder` that has it, for a moment
        except OSError:
            return  # this filesystem has no such locks
        else:
            return
    number = _number(descriptor)
    named = f" (process {number})" if number else ""
    raise RunError(
        f"{folder} is in use by another run of opframe{named}; wait until it ends, or choose another run.folder"
    )


def holder(folder: Path) -> int | None:
    """The number of the process that holds a folder, 0 where the system does not say it; None: nobody does."""
    if sys.platform == "win32" or not folder.is_dir():
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        number = _number(descriptor)
        if number:
            return number
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def _is(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _number(descriptor: int) -> int:
    """The process that holds a folder, where the system says it; else 0."""
    status = os.fstat(descriptor)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError):
        for line in _LOCKS.read_text(encoding="utf-8").splitlines():
            words = line.split()  # 1: FLOCK ADVISORY WRITE 8123 00:2f:1234 0 EOF
            if "FLOCK" in words and place in words and "->" not in words:
                return int(words[words.index(place) - 1])
    return 0
