"""Python runs this when it starts, with this folder on its path: it makes one function of opframe take a minute.

SLOW is `module:name within it`, HOW is in what way, AFTER how many calls it is quick before, and REACHED the file that
says that it has begun.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import os
import time
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

MINUTE = 60.0


def asleep() -> None:
    """A wait that Python interrupts."""
    time.sleep(MINUTE)


def briefly() -> None:
    """A few seconds that nobody interrupts."""
    until = time.monotonic() + 3.0
    while time.monotonic() < until:
        time.sleep(0.1)


def in_a_library() -> None:
    """One call that gives Python no turn to run a handler."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000_000)


def swallowing() -> None:
    """Code that goes on whatever is raised, as C libraries do that call back."""
    until = time.monotonic() + MINUTE
    while time.monotonic() < until:
        try:
            time.sleep(1.0)
        except BaseException:
            continue


def mistaking() -> None:
    """Code that makes an error of its own of what is raised."""
    from opframe_registry import DataError

    try:
        time.sleep(MINUTE)
    except BaseException as error:
        raise DataError("cannot be read") from error


def slowed(function: Callable[..., Any], how: Callable[[], None], after: int, reached: Path) -> Callable[..., Any]:
    calls = itertools.count()

    def slow(*arguments: Any, **options: Any) -> Any:
        if next(calls) == after:
            reached.with_name(f"{reached.name}.{os.environ.get('RANK', '0')}").touch()
            how()
        return function(*arguments, **options)

    return slow


if "SLOW" in os.environ:
    module, _, names = os.environ["SLOW"].partition(":")
    *path, last = names.split(".")
    owner = reduce(getattr, path, importlib.import_module(module))
    wanted = slowed(
        getattr(owner, last), globals()[os.environ["HOW"]], int(os.environ["AFTER"]), Path(os.environ["REACHED"])
    )
    setattr(owner, last, wanted)
