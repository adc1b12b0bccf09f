"""Signals that ask a process to end: obeyed at once, or after what must not be cut short.

Python's handlers run between two of its instructions, and a library may take minutes for one, or swallow what a handler
raises. So a thread hears of every signal from the system itself, and ends a process that does not end on its own.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from attrs import define

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP", "SIGQUIT", "SIGXCPU")
    if hasattr(signal, name)  # Windows has the first two
)
"""Those that ask for the end: Ctrl-C, kill, what schedulers send before the time is over, a terminal that is closed."""
_MOMENT = 1.0
"""Seconds for a process to end by itself. Signals that come within it are one: a launcher may send it once more."""


class Interrupted(KeyboardInterrupt):
    """A signal that asks the process to end; `code` is its exit code."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.code = exit_code(number)


def exit_code(number: int) -> int:
    """The exit code of a process that a signal has ended, as shells count: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number


@contextmanager
def obeyed() -> Iterator[None]:
    """Signals raise Interrupted in the main thread, after saying so in a line; a moment later the process is ended.

    Only for what is carried out in the main thread, and not for what goes on after it: once there was a signal, the
    process ends a moment later, whatever it does. Where a handler's exception cannot go on, as out of the collection of
    garbage, Python would show its traceback; that is left out.
    """
    asked = _Asked()

    def obey(number: int, _: FrameType | None) -> None:
        if asked.number is None:
            asked.number = number
            raise Interrupted(number)

    watch = _Watch(asked, patient=False)
    watch.begin(obey)
    unraised = sys.unraisablehook
    sys.unraisablehook = lambda found: None if isinstance(found.exc_value, Interrupted) else unraised(found)
    try:
        yield
    finally:
        sys.unraisablehook = unraised
        if asked.number is None:
            watch.end()
        else:  # also where a library has made another error of it, or none
            asked.say()
            raise Interrupted(asked.number) from None


@contextmanager
def deferred(ask: Callable[[int], None]) -> Iterator[None]:
    """The first signal calls `ask` with its number; another one ends the process at once."""
    asked = _Asked()

    def defer(number: int, _: FrameType | None) -> None:
        if asked.number is None:
            asked.number = number
            ask(number)

    watch = _Watch(asked, patient=True)
    watch.begin(defer)
    try:
        yield
    finally:
        watch.end()


@contextmanager
def left_alone() -> Iterator[None]:
    """Signals are for a library with handlers of its own; those of before are put back in the end."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    woken = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Ctrl-C waits. Processes that are started meanwhile never hear of it: it is for the one that started them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """For a process that works for the one that started it: Ctrl-C is for the other one, whose end is its own too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import multiprocessing  # not above: every command imports this module, and few start helpers

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), name="parent", daemon=True).start()


def _follow(sentinel: int) -> None:
    from multiprocessing.connection import wait

    wait([sentinel])
    os._exit(1)


def _is_ignored(number: int) -> bool:
    """Whether who started this process does not want it to hear of a terminal that is closed, as nohup does."""
    return number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) == signal.SIG_IGN


@define
class _Asked:
    """The first signal that came, and whether anybody has been told."""

    number: int | None = None
    told: bool = False

    def say(self) -> None:
        """One line, from the process that speaks for all."""
        if not self.told and self.number is not None and os.environ.get("RANK", "0") == "0":
            self.told = True
            with suppress(OSError):
                os.write(2, f"{Interrupted(self.number)}\n".encode())


class _Watch:
    """A thread that ends the process a moment after the first signal, or if it is patient, at another one later."""

    def __init__(self, asked: _Asked, patient: bool) -> None:
        self._asked, self._patient = asked, patient
        self._heard, self._told = socket.socketpair()
        self._told.setblocking(False)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def begin(self, handler: Callable[[int, FrameType | None], None]) -> None:
        """Take the signals over, for the thread and for a handler that Python calls when it can."""
        self._handlers = {number: signal.signal(number, handler) for number in SIGNALS if not _is_ignored(number)}
        self._woken = signal.set_wakeup_fd(self._told.fileno(), warn_on_full_buffer=False)

    def end(self) -> None:
        """Give the signals back."""
        signal.set_wakeup_fd(self._woken)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._told.close()

    def _watch(self) -> None:
        with self._heard:
            first = self._next()
            if first is None:
                return
            with suppress(TimeoutError):
                deadline = time.monotonic() + _MOMENT
                while (left := deadline - time.monotonic()) > 0:
                    self._heard.settimeout(left)
                    if self._next() is None:
                        return
            self._heard.settimeout(None)
            if self._patient and self._next() is None:
                return
        self._asked.number = self._asked.number or first
        self._asked.say()
        if os.isatty(1):
            os.write(1, b"\x1b[?25h")  # the cursor, which a progress bar hides
        os._exit(exit_code(first))

    def _next(self) -> int | None:
        """The next signal; None when the watch is over."""
        while data := self._heard.recv(1):
            if data[0] in SIGNALS:
                return data[0]
        return None
