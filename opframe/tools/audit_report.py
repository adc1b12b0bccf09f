"""What `opframe data check` found, as tables, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from rich.console import Console

from opframe.console import counted, tables_that_fit
from opframe.files.atomic import write_atomically
from opframe.tables import markdown_table
from opframe.tools.audit import Audit, Finding

_SHOWN = 8
_HEADINGS = ("channel", "min", "max", "mean", "std", "drift", "growth")
_NUMBERS = ("trajectories", "left out", "bad", "remarks")
LEGEND = "drift: last frame's mean less the first's, in standard deviations; growth: ratio of their standard deviations"


def show(audits: Sequence[Audit], console: Console) -> None:
    """Print a table for each split, what was found in it, and the keys that leave bad trajectories out."""
    for found in audits:
        title = f"{found.part.title} ({found.part.split}): {_numbers(found)}"
        for table in tables_that_fit(console, title, _HEADINGS, channel_rows(found)):
            console.print(table)
        for finding in found.findings[:_SHOWN]:
            colour = "red" if finding.bad else "yellow"
            mark = "bad   " if finding.bad else "remark"
            console.print(f"  [{colour}]{mark}[/{colour}] {finding.trajectory}: ", end="", highlight=False)
            console.print(finding.what, markup=False, highlight=False, soft_wrap=True)
        if len(found.findings) > _SHOWN:
            console.print(f"  … and {len(found.findings) - _SHOWN} more; --out FOLDER writes all", highlight=False)
        console.print()
    if any(channel_rows(found) for found in audits):
        console.print(f"[dim]{LEGEND}[/dim]", highlight=False)
    for line in verdict(audits):
        console.print(line, markup=False, highlight=False)


def _numbers(found: Audit, zeros: bool = False) -> str:
    """How many trajectories there are of which kind, in words; those of which there are none if asked for."""
    kept, left_out, bad, remarks = _counts(found)
    words = [counted(kept, "trajectory"), f"{left_out} left out", f"{bad} bad", counted(remarks, "remark")]
    return ", ".join(word for word, count in zip(words, _counts(found), strict=True) if count or zeros)


def _counts(found: Audit) -> tuple[int, int, int, int]:
    remarks = sum(not finding.bad for finding in found.findings)
    return found.looked_at, len(found.part.excluded), len(found.bad), remarks


def channel_rows(found: Audit) -> list[tuple[str, ...]]:
    """One row of statistics for each channel; none where no trajectory could be read."""
    return [
        (record["channel"], *(f"{record[name]:.3g}" for name in _HEADINGS[1:])) for record in channel_records(found)
    ]


def channel_records(found: Audit) -> list[dict[str, Any]]:
    """Statistics of each channel over all trajectories, frames and points."""
    if found.course is None:
        return []
    whole, first, last = found.course.whole, found.course.first, found.course.last
    with np.errstate(divide="ignore", invalid="ignore"):
        drift = np.where(whole.std > 0, (last.mean - first.mean) / whole.std, 0.0)
        growth = np.where(first.std > 0, last.std / first.std, np.where(last.std > 0, np.inf, 1.0))
    columns = (whole.low, whole.high, whole.mean, whole.std, drift, growth)
    names = found.part.trajectories.metadata.channels
    return [
        {"channel": name, **{key: float(column[index]) for key, column in zip(_HEADINGS[1:], columns, strict=True)}}
        for index, name in enumerate(names)
    ]


def verdict(audits: Sequence[Audit]) -> list[str]:
    """Whether the data can be used, and what to write into the config where they cannot."""
    bad = sum(len(found.bad) for found in audits)
    total = sum(found.looked_at for found in audits)
    if not bad:
        return [f"nothing bad in {counted(total, 'trajectory')}"]
    lines = [f"{bad} of {counted(total, 'trajectory')} {'is' if bad == 1 else 'are'} bad"]
    for found in audits:
        if found.part.split == "train" and (found.bad or found.leaked):
            numbers = sorted({*found.bad, *found.leaked, *found.part.excluded})
            lines.append(f"to train without them: [[datasets]] of {found.part.title}: exclude = {numbers}")
    tested = sum(len(found.bad) for found in audits if found.part.split == "test")
    if tested > sum(len(found.leaked) for found in audits):
        lines.append("exclude leaves out training data only; scores are of all test data")
    return lines


def write(audits: Sequence[Audit], folder: Path) -> None:
    """Write check.md and check.json."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "check.md", _markdown(audits))
    write_atomically(folder / "check.json", json.dumps([_record(found) for found in audits], indent=1))


def _record(found: Audit) -> dict[str, Any]:
    return {
        "dataset": found.part.title,
        "split": found.part.split,
        **dict(zip(_NUMBERS, _counts(found), strict=True)),
        "bad": found.bad,
        "channels": channel_records(found),
        "findings": [attrs.asdict(finding) for finding in found.findings],
    }


def _markdown(audits: Sequence[Audit]) -> str:
    lines = ["# Data check", "", *(f"- {line}" for line in verdict(audits))]
    for found in audits:
        lines += ["", f"## {found.part.title} ({found.part.split})", ""]
        lines += [_numbers(found, zeros=True), ""]
        lines += markdown_table(_HEADINGS, "l" + "r" * (len(_HEADINGS) - 1), channel_rows(found))
        lines += ["", *map(_item, found.findings)] if found.findings else []
    return "\n".join([*lines, "", LEGEND, ""])


def _item(finding: Finding) -> str:
    return f"- {'**bad**' if finding.bad else 'remark'}: trajectory {finding.trajectory}: {finding.what}"
