"""What a person sees: progress bars in a terminal, lines of text elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SECONDS = 10.0  # between the lines that a bar becomes where there is no terminal


class Bar:
    """One bar with a few words behind it. Only the leading process shows it."""

    def __init__(self, console: Console, what: str, total: int, done: int = 0, shown: bool = True) -> None:
        self._console = console
        self._what, self._total, self._shown = what, total, shown
        self._started, self._first = time.monotonic(), done
        self._last_line = self._started
        self._progress: Progress | None = None
        if shown and console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[words]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._progress.add_task(what, total=total, completed=done, words="")

    def __enter__(self) -> Self:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()

    def show(self, done: int, words: str = "") -> None:
        """Move to `done`, with a few words on how it goes."""
        if self._progress:
            self._progress.update(self._task, completed=done, words=words)
        elif self._shown and (done >= self._total or time.monotonic() - self._last_line > _SECONDS):
            self._last_line = time.monotonic()
            left = (self._last_line - self._started) / max(done - self._first, 1) * (self._total - done)
            self._console.print(f"{self._what} {done}/{self._total}  {words}  {left:.0f} s left", highlight=False)


class Preparation:
    """Shows the preparation of datasets: one bar for each thing that is being made."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Bar | None = None
        self._what = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Report progress, as datasets do while they prepare."""
        if what != self._what:
            self._end()
            self._what, self._bar = what, Bar(self._console, f"preparing {what}", total).__enter__()
        if self._bar:
            self._bar.show(done)

    def _end(self) -> None:
        if self._bar:
            self._bar.__exit__(None, None, None)
        self._bar = None
