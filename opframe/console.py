"""What a person sees: progress bars in a terminal, lines of text elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD, Box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_HEADING = 14  # characters of a heading's line, or of a name's where there is little room
_SEVERAL = {"trajectory": "trajectories", "axis": "axes", "process": "processes"}
_UNBOUNDED = 10_000  # a width that everything fits into
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_SHOWN = 12  # numbers in a sentence
_SECONDS = 10.0  # between the lines that a bar becomes where there is no terminal


def say(console: Console, words: str) -> None:
    """A line of text as it is."""
    console.print(words, markup=False, highlight=False, soft_wrap=True)


def counted(count: int, one: str) -> str:
    """A number and what is counted, as `1 file` or `2 trajectories`."""
    *before, last = one.split(" ")
    return " ".join([str(count), *before, last if count == 1 else _SEVERAL.get(last, last + "s")])


def few(numbers: Sequence[int]) -> str:
    """The first of some numbers, and how many more there are."""
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return ", ".join(map(str, numbers[:_SHOWN])) + more


def bytes_in_words(count: float) -> str:
    """A number of bytes in three digits, as `5.2 TB`."""
    for unit in _UNITS:
        rounded = float(f"{count:.3g}")
        if rounded < 1000 or unit == _UNITS[-1]:
            break
        count /= 1000
    return f"{rounded:,.0f} {unit}" if rounded >= 100 else f"{rounded:g} {unit}"


def tables_that_fit(
    console: Console, title: str, head: Sequence[str], rows: Sequence[Sequence[str]], box: Box = SIMPLE_HEAD
) -> list[Table]:
    """One table of names and numbers, or several with some columns each where the console is too narrow for one.

    Numbers are never cut; the names in the first column and the headings fold. A row of one cell heads a section.
    """
    count = len(head) - 1
    for blocks in range(1, count + 1):
        size = -(-count // blocks)
        names = None if blocks == 1 else max(console.width // 3, _HEADING)
        starts = range(1, count + 1, size)
        tables = [
            _block(title if start == 1 else "", head, rows, range(start, min(start + size, count + 1)), names, box)
            for start in starts
        ]
        if all(_width(table, console) <= console.width for table in tables):
            break
    return tables


def _block(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]], columns: range, names: int | None, box: Box
) -> Table:
    """A table of the names, at most so many characters wide, and some of the columns of numbers."""
    table = Table(
        title=Text(title) if title else None, title_justify="left", box=box, padding=(0, 1, 0, 0), pad_edge=False
    )
    table.add_column(Text(head[0]), overflow="fold", max_width=names)
    for column in columns:
        cells = max((len(row[column]) for row in rows if len(row) > 1), default=0)
        widest = max(cells, _HEADING)
        table.add_column(Text(head[column]), justify="right", overflow="fold", min_width=cells, max_width=widest)
    for row in rows:
        if len(row) == 1:
            table.add_section()
        table.add_row(Text(row[0]), *(Text(row[column]) for column in columns if len(row) > 1))
    return table


def _width(table: Table, console: Console) -> int:
    """How wide a table would be where there is room for anything."""
    return console.measure(table, options=console.options.update(width=_UNBOUNDED)).maximum


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

    @classmethod
    def hidden(cls) -> Self:
        """One that nobody sees."""
        return cls(Console(quiet=True), "", 1, shown=False)

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
