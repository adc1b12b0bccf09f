"""Ours beside the straightforward way, and beside the published code where it is at hand, in one run.

    OMP_NUM_THREADS=1 python -m benchmarks.side_by_side --threads 1 --json side_by_side.json
    OPFRAME_BENCH_DPOT=~/DPOT OPFRAME_BENCH_MOEPOT=~/MoEPOT python -m benchmarks.side_by_side --rows tiny-4 moe-4 fno

All have the same weights and see the same random frames: 10 of 4 channels on 128². They run in turns, each in a process
of its own, ours with the memory settings of a run; a ratio is the median over rounds of their time / ours, with its
quartiles in brackets. `error` is the relative difference of the
outputs in that run. The straightforward way are the networks of tests/reference. The published code is
imported from checkouts that OPFRAME_BENCH_DPOT and OPFRAME_BENCH_MOEPOT name; neuralop's FNO is compared with if the
package neuraloperator is installed. Run it on a machine that does nothing else, or else with --clock cpu, one thread.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from attrs import asdict, frozen

from benchmarks.cases import CASES, CPU, Case, Counted
from benchmarks.players import Players, Setting, players
from opframe.bench.machine import description
from opframe.bench.report import duration
from opframe.bench.timing import rounds, spread, timed
from opframe.tables import markdown_table

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
HEADINGS = ("row", "against", "theirs", "ours", "ratio", "must", "aim", "error")


@frozen(kw_only=True)
class Line:
    """A ratio, or a count, beside what it must be and what it should be; `reached` is "no", "must" or "aim"."""

    row: str
    against: str
    theirs: str
    ours: str
    ratio: float
    low: float
    high: float
    must: float
    aim: float
    at_most: bool
    error: float | None

    @property
    def reached(self) -> str:
        """How far the targets are reached."""
        beyond = [self.ratio <= target if self.at_most else self.ratio >= target for target in (self.must, self.aim)]
        return "aim" if beyond[1] else "must" if beyond[0] else "no"


def main() -> None:
    """Measure what the command line names, and print the table."""
    options = _options()
    torch.set_num_threads(options.threads)
    cases = {name: case for name, case in CASES.items() if not options.rows or name in options.rows}
    lines = []
    for name, case in cases.items():
        print(f"{name} …", file=sys.stderr)
        torch.manual_seed(0)
        lines += measure(name, case, options)
    print("\n".join([environment(options.clock), "", *table(lines)]))
    if options.json:
        rows = [{**asdict(line), "reached": line.reached} for line in lines]
        report = {"environment": environment(options.clock), "rows": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rows", nargs="+", choices=list(CASES), metavar="ROW", help=f"only these of: {', '.join(CASES)}")
    add("--threads", type=int, default=torch.get_num_threads(), help="threads (default: as many as cores)")
    add("--seconds", type=float, default=20.0, help="time that each row is measured for, at least (20)")
    add("--clock", choices=list(CLOCKS), default="wall", help="cpu: time of this process, on a busy machine (wall)")
    add("--together", action="store_true", help="all in this process, which shares its memory out among them")
    add("--small", action="store_true", help="tiny networks on a small grid, to see that the script works")
    add("--json", type=Path, metavar="FILE", help="write exact numbers there")
    return parser.parse_args()


def measure(row: str, case: Case, options: argparse.Namespace) -> list[Line]:
    """The lines of one case: one for each implementation that ours is compared with."""
    if case.counted or options.together:
        made = case.make(options.small)
        if isinstance(made, Mapping):
            return [counted(case, what, each) for what, each in made.items()]
        timers = [partial(timed, call, CPU, CLOCKS[options.clock]) for call in (made.ours, *made.theirs.values())]
        found = Players(timers=timers, names=["ours", *made.theirs], errors=made.errors, parts=made.parts)
        return _compared_all(case, found, options.seconds)
    clock = CLOCKS[options.clock]
    with players(Setting(row=row, small=options.small, threads=options.threads, clock=clock)) as found:
        return _compared_all(case, found, options.seconds)


def _compared_all(case: Case, found: Players, seconds: float) -> list[Line]:
    ours, *others = rounds(found.timers, seconds)
    return [_compared(case, found, name, ours, theirs) for name, theirs in zip(found.names[1:], others, strict=True)]


def _compared(case: Case, made: Players, name: str, ours: Sequence[float], theirs: Sequence[float]) -> Line:
    ratio = spread([slow / fast for fast, slow in zip(ours, theirs, strict=True)])
    must, aim = case.targets.get(name, case.targets["any"])
    return Line(
        row=case.label,
        against=name,
        theirs=duration(spread(theirs).median / made.parts),
        ours=duration(spread(ours).median / made.parts),
        ratio=ratio.median,
        low=ratio.low,
        high=ratio.high,
        must=must,
        aim=aim,
        at_most=False,
        error=made.errors.get(name),
    )


def counted(case: Case, what: str, made: Counted) -> Line:
    """A line that is the same on every machine."""
    value = made.ours / made.theirs if made.relative else made.ours
    must, aim = case.targets[what]
    return Line(
        row=f"{case.label}: {what}",
        against="straightforward",
        theirs=f"{made.theirs / made.unit:,.4g}",
        ours=f"{made.ours / made.unit:,.4g}",
        ratio=value,
        low=value,
        high=value,
        must=must,
        aim=aim,
        at_most=True,
        error=None,
    )


def environment(clock: str) -> str:
    """Date, hardware, versions and command."""
    command = shlex.join(["python", "-m", "benchmarks.side_by_side", *sys.argv[1:]])
    return f"{datetime.now(UTC):%Y-%m-%d}, {description(CPU)}, {clock} time: `{command}`"


def table(lines: Sequence[Line]) -> list[str]:
    """The lines as a Markdown table. What reaches its aim is bold; what misses what it must be is in italics."""
    return markdown_table(HEADINGS, "llrrrrrr", map(_cells, lines))


def _cells(line: Line) -> list[str]:
    mark = {"aim": "**", "must": "", "no": "*"}[line.reached]
    number = f"{line.ratio:.3g}" if line.at_most else f"{line.ratio:.2f}"
    ratio = f"{mark}{number}{mark}" + ("" if line.low == line.high else f" ({line.low:.2f}–{line.high:.2f})")
    sign = "≤ " if line.at_most else ""
    targets = [f"{sign}{target:g}" for target in (line.must, line.aim)]
    error = "" if line.error is None else f"{line.error:.0e}"
    return [line.row, line.against, line.theirs, line.ours, ratio, *targets, error]


if __name__ == "__main__":
    main()
