"""The processes that train together as each of them knows the others, and what is said where one no longer answers."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from attrs import frozen
from torch.distributed import Store  # type: ignore[attr-defined]

LOST = 1
"""Exit code of a process that has lost another one."""
MISTAKE = 2
"""Exit code where another process says what a person can mend."""
_BEAT = 1.0
"""Seconds between two signs of life of the leading process."""
_LOOK = 5.0
"""Seconds between two looks for them."""
_MOMENT = 1.0
"""Seconds in which all that are there have seen that one is not."""
_SPOKEN = "spoken"


@frozen(kw_only=True)
class Member:
    """Where one of the processes is."""

    host: str
    process: int


class Peers:
    """The processes that train together, over the store by which torch has brought them together.

    `timeout` says in seconds, and `limit` in words, how long one waits for another.
    """

    def __init__(self, store: Store, rank: int, count: int, timeout: float, limit: str) -> None:
        self._store, self._rank, self._timeout, self._limit = store, rank, timeout, limit
        self._waits = 0
        self._put(f"member {rank}", {"host": socket.gethostname(), "process": os.getpid()})
        self._members = [Member(**self._got(f"member {each}")) for each in range(count)]

    @contextmanager
    def alive(self) -> Iterator[None]:
        """The leading process gives signs of life, so that the others can tell what takes long from what hangs."""
        ended = threading.Event()
        if self._rank == 0:
            threading.Thread(target=self._beat, args=(ended,), name="beat", daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def _beat(self, ended: threading.Event) -> None:
        count = 0
        with suppress(RuntimeError):  # the store may be gone in the end
            while not ended.wait(_BEAT):
                count += 1
                self._put("beat", count)

    def await_leader(self) -> None:
        """Wait until the leading process has come here as well. Raises TimeoutError where it gives no sign of life."""
        self._waits += 1
        with suppress(RuntimeError):  # the launcher, which has the store, is gone; what comes next waits all the same
            self._await(f"led {self._waits}")

    def _await(self, key: str) -> None:
        if self._rank == 0:
            self._put(key, True)
            return
        beat, since = None, time.monotonic()
        while not self._is_there(key, min(self._timeout / 4, _LOOK)):
            latest = self._got("beat") if self._has("beat") else None
            if latest != beat:
                beat, since = latest, time.monotonic()
            elif time.monotonic() - since > self._timeout:
                raise TimeoutError("gloo: the leading process gives no sign of life; timed out")

    def speaks(self) -> bool:
        """Whether this process is the first that is about to say what is wrong; the others then need say nothing."""
        try:
            return bool(self._store.add(f"opframe/{_SPOKEN}", 1) == 1)
        except RuntimeError:  # the store is gone
            return True

    def lose(self, error: BaseException) -> int:
        """Say, once for all, who does not answer; returns the exit code.

        What hangs is ended where it is on this machine, so that whoever has started it can begin again.
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which the launcher sends as soon as one of us ends
        with suppress(RuntimeError):  # the machine of the store is gone
            self._put(f"left {self._rank}", "imed out" in str(error) or "timeout" in str(error).lower())
            time.sleep(_MOMENT)
            if self._has(_SPOKEN):
                return MISTAKE
            left = {
                rank: bool(self._got(f"left {rank}")) for rank in range(len(self._members)) if self._has(f"left {rank}")
            }
            if any(left.values()) and len(left) < len(self._members):
                self._end_those_that_hang(left, " ".join(getattr(error, "__notes__", ())))
                return LOST
        said = (
            f"process {self._rank} has lost another one that it trained with; see what that has said, or how it ended"
        )
        print(f"error: {said}", file=sys.stderr)
        return LOST

    def _end_those_that_hang(self, left: Mapping[int, bool], where: str) -> None:
        here = self._members[self._rank].host
        for rank, member in enumerate(self._members):
            if rank in left:
                continue
            if self._rank == min(left):
                place = f" {where}" if where else ""
                said = f"process {rank} (number {member.process} on {member.host}) does not answer{place}"
                waited = f"the others have waited {self._limit} for it (trainer.timeout), and it is ended"
                print(f"error: {said}: {waited}", file=sys.stderr)
            if member.host == here:
                with suppress(OSError):
                    os.kill(member.process, signal.SIGKILL)

    def _is_there(self, key: str, seconds: float) -> bool:
        try:
            self._store.wait([f"opframe/{key}"], timedelta(seconds=max(seconds, 0.1)))
        except RuntimeError as error:
            if "imeout" not in str(error) and "imed out" not in str(error):
                raise
            return False
        return True

    def _has(self, key: str) -> bool:
        return bool(self._store.check([f"opframe/{key}"]))

    def _put(self, key: str, value: Any) -> None:
        self._store.set(f"opframe/{key}", json.dumps(value))

    def _got(self, key: str) -> Any:
        return json.loads(self._store.get(f"opframe/{key}"))
