"""What was measured: as a table for people, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from attrs import asdict, frozen
from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.table import Table

from opframe.bench.steps import LOOP, STEP, Row
from opframe.bench.timing import Spread
from opframe.console import tables_that_fit

_HEADINGS = ("", "time (quartiles)", "rate", "memory", "GFLOP/s", "GB/s")


@frozen(kw_only=True)
class Findings:
    """Where and how it was measured, what the machine can do at most, in FLOP/s and bytes/s, and the rows."""

    title: str
    environment: str
    product: float
    copy: float
    rows: Sequence[Row]

    def record(self, row: Row) -> dict[str, Any]:
        """Everything that is known of a row, as plain numbers."""
        flops = row.work.flops / row.seconds.median if row.work else None
        moved = row.moved / row.seconds.median if row.moved else None
        return {
            **asdict(row),
            "rate": row.rate,
            "flops_per_second": flops,
            "of_product": flops and flops / self.product,
            "bytes_per_second": moved,
            "of_copy": moved and moved / self.copy,
        }

    def to_json(self) -> str:
        """All of it."""
        ceilings = {"product_flops_per_second": self.product, "copy_bytes_per_second": self.copy}
        rows = [self.record(row) for row in self.rows]
        environment = {"title": self.title, "environment": self.environment}
        return json.dumps({**environment, "ceilings": ceilings, "rows": rows}, indent=1) + "\n"

    def tables(self, console: Console) -> list[Table]:
        """The rows, one below the other, in one table or several where the console is too narrow for one."""
        title = f"{self.title}\n{self.environment}"
        return tables_that_fit(console, title, _HEADINGS, [self._cells(row) for row in self.rows], box=HEAVY_HEAD)

    def ceilings(self) -> str:
        """What the machine can do at most, in words."""
        return (
            f"measured ceilings: a product {self.product / 1e9:.0f} GFLOP/s, a copy {self.copy / 1e9:.1f} GB/s "
            "read and written"
        )

    def _cells(self, row: Row) -> list[str]:
        record, work = self.record(row), row.work
        return [
            row.name,
            _times(row.seconds),
            f"{row.rate:.3g} {row.unit}/s" if row.rate < 1000 else f"{row.rate:,.0f} {row.unit}/s",
            f"{work.memory / 1e6:,.3g} MB" if work else "",
            _beside(record["flops_per_second"], record["of_product"]),
            _beside(record["bytes_per_second"], record["of_copy"]),
        ]

    def verdict(self) -> str:
        """What the loader costs training."""
        rates = {row.name: row.rate for row in self.rows}
        return f"with the loader training reaches {rates[LOOP] / rates[STEP]:.0%} of the samples/s of the step alone"


def _beside(value: float | None, share: float | None) -> str:
    """A rate in units of 10⁹, and what part of its ceiling that is."""
    return "" if value is None or share is None else f"{value / 1e9:.3g} ({share:.0%})"


def _times(seconds: Spread) -> str:
    """Median and quartiles in one unit."""
    if seconds.count == 1:
        return duration(seconds.median)
    scale = 1 if seconds.median >= 1 else 1e3
    return f"{duration(seconds.median)} ({scale * seconds.low:.3g} – {scale * seconds.high:.3g})"


def duration(seconds: float) -> str:
    """Seconds with three digits, in milliseconds below one."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
