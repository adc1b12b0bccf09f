"""`opframe status`: how a run is getting on."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from opframe.run.status import Status


def add_status(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `status` to the command line."""
    status = commands.add_parser("status", help="how far a run is, how fast, and when it will end")
    status.add_argument("run", type=Path, metavar="RUN", help="the run folder")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.set_defaults(command=_status)


def _status(arguments: argparse.Namespace) -> int:
    from opframe.run.status import read_status

    found = read_status(arguments.run)
    if arguments.json:
        print(json.dumps(found.facts(), indent=1))
        return 0
    console = Console()
    process = f", process {found.process}" if found.process else ""
    console.print(f"{found.folder}: {found.state}{process}", markup=False, highlight=False, soft_wrap=True)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, words in _rows(found):
        table.add_row(name, words)
    console.print(table, highlight=False, markup=False)
    return 0


def _rows(found: Status) -> Iterator[tuple[str, str]]:
    yield "step", f"{found.step:,} of {found.steps:,} ({100 * found.step / found.steps:.0f} %)"
    if speed := ", ".join(_speed(found)):
        yield "speed", speed
    if found.losses:
        losses = ", ".join(f"{name} {value:.4g}" for name, value in found.losses.items())
        yield "loss", losses + (f" (of late {found.usual:.4g})" if found.usual is not None else "")
    if found.by_dataset:
        yield "by dataset", ", ".join(f"{name} {value:.4g}" for name, value in found.by_dataset.items())
    if found.evaluated:
        step, error = found.evaluated
        best = f"; best {found.best[1]:.4g} at step {found.best[0]:,}" if found.best else ""
        yield "evaluation", f"{error:.4g} at step {step:,}{best}"
    if found.memory_gb is not None:
        yield "memory", f"{found.memory_gb:.2g} GB at most"
    if found.saved is not None and found.saved_ago is not None:
        yield "checkpoint", f"step {found.saved:,}, {_duration(found.saved_ago)} ago"
    if found.left is not None:
        yield (
            "ends",
            f"in about {_duration(found.left)}, {time.strftime('%a %H:%M', time.localtime(time.time() + found.left))}",
        )
    if found.wrong is not None:
        yield "went wrong", found.wrong


def _speed(found: Status) -> Iterator[str]:
    if found.samples_per_second is not None:
        yield f"{found.samples_per_second:.3g} samples/s"
    if found.seconds is not None:
        yield f"{found.seconds:.3g} s a step"
    if found.data_wait is not None:
        yield f"{100 * found.data_wait:.0f} % of it waiting for data"


def _duration(seconds: float) -> str:
    """A time in its two largest units, as `2 d 4 h`."""
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    whole = max(round(seconds), 0)
    for index, (length, name) in enumerate(units):
        if whole >= length or length == 1:
            count, rest = divmod(whole, length)
            below = units[index + 1] if index < len(units) - 2 else None  # minutes need no seconds
            return f"{count} {name}" + (f" {rest // below[0]} {below[1]}" if below and rest // below[0] else "")
    return "0 s"
