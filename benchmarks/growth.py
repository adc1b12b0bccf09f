"""How the cost of a training step of DPOT grows: counted work, time and peak memory, as a table and a figure.

    OMP_NUM_THREADS=1 python -m benchmarks.growth --threads 1 --figure docs/images/growth.png --json growth.json

One thing grows at a time, the others stay at 128², batch 4, 10 frames, 4 channels and Tiny. The figure shows every
quantity relative to the leftmost point, and proportional growth as a dotted line. Work and memory are counted and the
same on every machine; a step that takes longer than --limit is counted, but not timed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from attrs import asdict, evolve, frozen
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.cases import CPU, FIELDS, TINY
from benchmarks.side_by_side import CLOCKS
from benchmarks.sides import Ours, random_batch
from opframe.bench.machine import description
from opframe.bench.timing import in_turns, spread
from opframe.bench.work import count_work
from opframe.config.building import build_network
from opframe.run.memory import keep_freed_memory
from opframe.tables import markdown_table
from opframe.weights.model_size import model_size
from opframe_pot import DPOT
from opframe_registry import Fields

BATCH = 4
QUANTITIES = {"flops": "counted FLOPs", "seconds": "time", "memory": "peak memory"}
MARKS = {"flops": ("tab:blue", "o"), "seconds": ("tab:orange", "s"), "memory": ("tab:green", "^")}
HEADINGS = ("grows", "to", "GFLOP", "time", "peak memory")
COLUMNS = 3


@frozen(kw_only=True)
class Point:
    """A training step at one size: `x` is what grows, `label` how it is called."""

    grows: str
    label: str
    x: float
    flops: int
    memory: int
    seconds: float | None


@frozen(kw_only=True)
class Size:
    """What a training step is taken of."""

    settings: DPOT = TINY
    fields: Fields = FIELDS
    batch: int = BATCH


def main() -> None:
    """Measure, print the table, draw the figure."""
    options = _options()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    points = []
    for grows, sizes in series(options.small).items():
        for label, (x, size) in sizes.items():
            print(f"{grows} {label} …", file=sys.stderr)
            points.append(measure(grows, label, x, size, options))
    where = f"{datetime.now(UTC):%Y-%m-%d}, {description(CPU)}, {options.clock} time"
    print("\n".join([where, "", *table(points)]))
    if options.json:
        report = {"environment": where, "rows": [asdict(point) for point in points]}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.figure:
        draw(points, options.figure)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--threads", type=int, default=torch.get_num_threads(), help="threads (default: as many as cores)")
    add("--seconds", type=float, default=3.0, help="time that each point is measured for, at least (3)")
    add("--limit", type=float, default=30.0, help="longest step that is timed, in seconds (30)")
    add("--clock", choices=list(CLOCKS), default="wall", help="cpu: time of this process, on a busy machine (wall)")
    add("--small", action="store_true", help="a tiny network and few points, to see that the script works")
    add("--json", type=Path, metavar="FILE", help="write exact numbers there")
    add("--figure", type=Path, metavar="FILE", help="draw the figure there")
    return parser.parse_args()


def series(small: bool) -> Mapping[str, Mapping[str, tuple[float, Size]]]:
    """By what grows: the sizes by label, each with its number on the axis."""
    if small:
        tiny = Size(settings=DPOT(width=16, depth=1, heads=2), fields=evolve(FIELDS, grid=(16, 16), history=3))
        return {"batch": {str(batch): (batch, evolve(tiny, batch=batch)) for batch in (1, 2)}}
    return {
        "grid points": {
            f"{side}²": (side**2, Size(fields=evolve(FIELDS, grid=(side, side)))) for side in (64, 128, 256, 512)
        },
        "batch": {str(batch): (batch, Size(batch=batch)) for batch in (1, 2, 4, 8, 16)},
        "frames": {str(frames): (frames, Size(fields=evolve(FIELDS, history=frames))) for frames in (2, 5, 10, 20)},
        "channels": {
            str(count): (count, Size(fields=evolve(FIELDS, channels=tuple("abcdefghijklmnop"[:count]))))
            for count in (1, 2, 4, 8, 16)
        },
        "parameters": {
            size: (model_size(settings, FIELDS).total, Size(settings=settings))
            for size in ("tiny", "small", "medium")
            for settings in [DPOT(size=size, **DPOT.presets[size])]
        },
    }


def measure(grows: str, label: str, x: float, size: Size, options: argparse.Namespace) -> Point:
    """Count a training step, and time it if it is not too slow."""
    torch.manual_seed(0)
    step = Ours(build_network(size.settings, size.fields), size.fields, random_batch(size.fields, size.batch)).step
    counted = count_work(step, CPU)
    clock = CLOCKS[options.clock]
    began = clock()
    step()
    timed = clock() - began <= options.limit
    seconds = spread(in_turns([step], options.seconds, CPU, clock)[0]).median if timed else None
    return Point(grows=grows, label=label, x=x, flops=counted.flops, memory=counted.memory, seconds=seconds)


def table(points: Sequence[Point]) -> list[str]:
    """The points as a Markdown table."""
    rows = [
        [
            point.grows,
            point.label,
            f"{point.flops / 1e9:,.1f}",
            "" if point.seconds is None else f"{1e3 * point.seconds:,.0f} ms",
            f"{point.memory / 1e6:,.0f} MB",
        ]
        for point in points
    ]
    return markdown_table(HEADINGS, "lrrrr", rows)


def draw(points: Sequence[Point], path: Path) -> None:
    """A panel for everything that grows, and one for the legend."""
    grown = list(dict.fromkeys(point.grows for point in points))
    rows = math.ceil((len(grown) + 1) / COLUMNS)
    figure = Figure(figsize=(3.3 * COLUMNS, 3 * rows), layout="constrained")
    *panels, last = figure.subplots(rows, COLUMNS, sharey=True).flat[: len(grown) + 1]
    for panel, grows in zip(panels, grown, strict=True):
        _draw_panel(panel, [point for point in points if point.grows == grows])
        panel.set_xlabel(grows)
    for panel in panels[::COLUMNS]:
        panel.set_ylabel("relative to the leftmost")
    last.axis("off")
    last.legend(*panels[0].get_legend_handles_labels(), loc="center", title="a training step of DPOT", frameon=False)
    figure.savefig(path, dpi=110)


def _draw_panel(panel: Axes, points: Sequence[Point]) -> None:
    for quantity, name in QUANTITIES.items():
        known = [(point.x, getattr(point, quantity)) for point in points if getattr(point, quantity) is not None]
        colour, marker = MARKS[quantity]
        xs, ys = zip(*known, strict=True)
        panel.plot(xs, [y / ys[0] for y in ys], marker=marker, color=colour, label=name, markersize=5)
    first, last = points[0].x, points[-1].x
    panel.plot([first, last], [1, last / first], ":", color="0.4", label="proportional")
    panel.set(xscale="log", yscale="log")
    panel.set_xticks([point.x for point in points], [point.label for point in points])
    panel.xaxis.minorticks_off()
    panel.grid(alpha=0.3)


if __name__ == "__main__":
    main()
