"""Ending before the time is over."""

from __future__ import annotations

import os
import time
from pathlib import Path

from opframe_registry import Training


class Clock:
    """Interrupts training when what has taken longest between two steps would no longer fit into the limit."""

    def __init__(self, limit: str, seconds: float) -> None:
        self._limit, self._seconds = limit, seconds
        self._begun = time.monotonic() - age()
        self._last: float | None = None  # the first step also compiles, which says nothing of the others
        self._longest = 0.0

    def after_step(self, training: Training) -> None:
        """Look at the clock."""
        now = time.monotonic()
        if self._last is not None:
            self._longest = max(self._longest, now - self._last)
        self._last = now
        if now - self._begun + self._longest >= self._seconds:
            training.interrupt(f"the {self._limit} of wall_clock are over or nearly so")


def age() -> float:
    """Seconds since this process began, where the system says so; else 0."""
    try:
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return max(uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK"), 0.0)
    except (OSError, ValueError, IndexError):
        return 0.0
