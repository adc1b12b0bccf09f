"""How fast windows for training are read, beside the straightforward way and beside a copy in memory.

The straightforward way reads the whole trajectory, resizes all of its frames, pads them to the channels of the mixture
and cuts the window out; in a mixture, torch's DataLoader does so in worker processes. Both ways read the same windows
of the same files, which this script writes in the published layout (N, X, Y, T, C), and their tensors are compared bit
by bit. `packed` is what `opframe data pack` makes of these files. A copy is torch's, of batches that are finished.
They are timed in turns, one thread by its processor time and several by the clock; a ratio is the median over rounds,
with its quartiles in brackets.

    OMP_NUM_THREADS=1 python -m benchmarks.loader --json loader.json
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from attrs import asdict, define, evolve, field, frozen
from torch.utils.data import DataLoader

from benchmarks.loader_files import LENGTH, Case, Shuffled, Straightforward, component_of, path_of, write
from opframe.bench.machine import description
from opframe.bench.timing import Call, Clock, Spread, in_turns, spread
from opframe.config.building import open_split
from opframe.mixture import loading
from opframe.mixture.buffers import Buffers, Memory
from opframe.mixture.source import Source, open_source
from opframe.run.memory import keep_freed_memory
from opframe.tables import markdown_table
from opframe_registry import Fields

BATCH, WORKERS = 8, 2
LAYOUTS = ("published", "packed")
HEADINGS = ("windows", "way", "samples/s", "against", "samples/s", "ratio")


@frozen(kw_only=True)
class Row:
    """Samples per second of one way and of another, medians, and how many times as fast the first one is."""

    windows: str
    way: str
    rate: float
    against: str
    other: float
    ratio: Spread


@define
class Bench:
    """The files of one or several datasets, and the batches of one round."""

    cases: Sequence[Case]
    folder: Path
    side: int
    steps: int
    seconds: float
    memory: Memory = field(factory=lambda: Buffers().take)

    def straightforward(self) -> Straightforward:
        """All samples of a round, from the published layout."""
        order = Shuffled(self.cases)
        windows = [window for step in range(self.steps) for window in order(0, step, BATCH)]
        return Straightforward([path_of(self.folder, "published", case) for case in self.cases], self.side, windows)

    def loader(self, layout: str, workers: int) -> loading.Loader:
        """All batches of a round, as training loads them."""
        sources = [_source(path_of(self.folder, layout, case), case.label) for case in self.cases]
        fields = Fields(channels=tuple("abcd"), grid=(self.side, self.side), history=LENGTH - 1)
        windows = loading.Windows(sources=sources, fields=fields, frames=1)
        order = Shuffled(self.cases)
        plan = loading.Plan(order=order, seed=0, batch_size=BATCH, rank=0, ranks=1, first=0, last=self.steps)
        return loading.Loader(windows=windows, plan=plan, workers=workers, memory=self.memory)

    def row(self, windows: str, names: tuple[str, str], ways: tuple[Call, Call], clock: Clock) -> Row:
        """Time two ways to make a round's samples."""
        ours, theirs = in_turns(ways, self.seconds, torch.device("cpu"), clock)
        rate, other = (self.steps * BATCH / spread(times).median for times in (ours, theirs))
        ratio = spread([other / own for own, other in zip(ours, theirs, strict=True)])
        return Row(windows=windows, way=names[0], rate=rate, against=names[1], other=other, ratio=ratio)


def main() -> None:
    """Write the files, measure, print the table, and write it as JSON if asked to."""
    options = _options()
    torch.set_num_threads(1)
    keep_freed_memory()  # as a run does; else chance decides how often either way waits for new pages
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = measure(Path(folder), options)
    print("\n".join([_environment(), "", *markdown_table(HEADINGS, "llrlrr", map(_cells, rows))]))
    if options.json:
        report = {"environment": _environment(), "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    purpose, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=purpose, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="time that each row is measured for, at least (5)")
    parser.add_argument("--steps", type=int, default=20, help=f"batches of {BATCH} in each round (20)")
    parser.add_argument("--folder", type=Path, help="where 0.6 GB of files are written (that of temporary files)")
    parser.add_argument("--small", action="store_true", help="small fields, only to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    return parser.parse_args()


def measure(folder: Path, options: argparse.Namespace) -> list[Row]:
    """All rows of the table, of files that are written into an empty folder."""
    side = 16 if options.small else 128
    cases = (
        Case(f"101 frames of 1 channel, {side}²", trajectories=16, frames=101, channels=1, side=side),
        Case(f"21 frames of 4 channels, {side}²", trajectories=20, frames=21, channels=4, side=side),
        Case(f"20 frames of 1 channel, {side // 2}² → {side}²", trajectories=60, frames=20, channels=1, side=side // 2),
    )
    for case in cases:
        write(folder, case)
    benches = [Bench([case], folder, side, options.steps, options.seconds) for case in cases]
    mixture = Bench(cases, folder, side, options.steps, options.seconds)
    longer = evolve(mixture, steps=10 * options.steps)  # copies are fast: that threads begin shall not count
    singles = [one_thread(bench, layout) for bench in benches for layout in LAYOUTS]
    return [*singles, several(mixture), *(copies(longer, workers) for workers in (0, WORKERS))]


def one_thread(bench: Bench, layout: str) -> Row:
    """A single dataset, against the straightforward way."""
    loader, samples = bench.loader(layout, 0), bench.straightforward()
    _assert_same(loader, samples)

    def straightforward() -> None:
        for first in range(0, len(samples), BATCH):
            torch.stack([samples[index] for index in range(first, first + BATCH)])

    names = (f"{layout} file, 1 thread", "straightforward, published file, 1 process")
    return bench.row(bench.cases[0].label, names, (partial(_drain, loader), straightforward), time.process_time)


def several(bench: Bench) -> Row:
    """The mixture by threads from packed files, against processes that go the straightforward way."""
    loader, samples = bench.loader("packed", WORKERS), bench.straightforward()
    _assert_same(loader, samples)
    processes = DataLoader(samples, BATCH, num_workers=WORKERS, persistent_workers=True)
    names = (f"packed files, {WORKERS} threads", f"straightforward, published files, {WORKERS} processes")
    ways = (partial(_drain, loader), lambda: deque(processes, maxlen=0))
    return bench.row("mixture of the three", names, ways, time.perf_counter)


def copies(bench: Bench, workers: int) -> Row:
    """The mixture from packed files, against copies of as many finished batches by as many threads."""
    loader = bench.loader("packed", workers)
    finished = [torch.cat((batch.inputs, batch.targets), 1) for batch in islice(loading.batches(loader), 8)]
    targets = [torch.zeros_like(batch) for batch in finished[: 2 * max(workers, 1)]]

    def copy(step: int) -> None:
        targets[step % len(targets)].copy_(finished[step % len(finished)])

    def all_copies() -> None:
        with ThreadPoolExecutor(max(workers, 1), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            deque(pool.map(copy, range(bench.steps)), maxlen=0)

    threads = f"{workers} threads" if workers else "1 thread"
    names = (f"packed files, {threads}", f"copy of finished batches, {threads}")
    clock = time.perf_counter if workers else time.process_time
    return bench.row("mixture of the three", names, (partial(_drain, loader), all_copies), clock)


def _drain(loader: loading.Loader) -> None:
    deque(loading.batches(loader), maxlen=0)


def _assert_same(loader: loading.Loader, samples: Straightforward) -> None:
    for step, batch in enumerate(islice(loading.batches(loader), 4)):
        for index, ours in enumerate(torch.cat((batch.inputs, batch.targets), 1)):
            if not torch.equal(ours, samples[step * BATCH + index].permute(2, 3, 0, 1)):
                raise SystemExit(f"sample {index} of batch {step}: the two ways differ")


def _source(path: Path, label: str) -> Source:
    component = component_of(path, label)
    return open_source(component, open_split(component, "train", path.parent), LENGTH - 1, 1, "train")


def _environment() -> str:
    command = shlex.join(["python", "-m", "benchmarks.loader", *sys.argv[1:]])
    return f"{datetime.now(UTC):%Y-%m-%d}, {description(torch.device('cpu'))}: `{command}`"


def _cells(row: Row) -> tuple[str, ...]:
    ratio = f"{row.ratio.median:.2f} ({row.ratio.low:.2f} – {row.ratio.high:.2f})"
    return row.windows, row.way, f"{row.rate:,.0f}", row.against, f"{row.other:,.0f}", ratio


if __name__ == "__main__":
    main()
