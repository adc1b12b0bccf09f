"""`opframe data bench`: how fast windows are read, beside what the machine could do with the same bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from statistics import median

import numpy as np
import torch
from attrs import frozen
from rich.table import Table

from opframe import assembly
from opframe.console import Bar
from opframe.data.arrays import ArrayTrajectories
from opframe.data.loading import batches, make_loader
from opframe.data.mixture import Source, read_into
from opframe.data.storage import is_local, local_path
from opframe.settings import Experiment
from opframe_registry import Batch, Fields

_SEED = 0


@frozen(kw_only=True)
class Rate:
    """How fast one dataset, or the mixture, is read; medians over rounds.

    `samples_per_second` counts finished windows, `megabytes_per_second` the bytes of their frames as they are stored
    (of the mixture: as they are finished), in float32. `read` and `fit` are milliseconds of one window: reading with
    decompression and ordering of axes; and looking for values that are not finite, resizing and padding. `ceiling` is
    what it is measured against, in the same MB/s: a plain sequential read of as many bytes of the same file, for the
    mixture a copy of finished batches in memory. None: it cannot be measured here.
    """

    title: str
    samples_per_second: float
    megabytes_per_second: float
    read: float | None
    fit: float | None
    ceiling: float | None

    @property
    def share(self) -> float | None:
        """The part of the ceiling that is reached."""
        return self.megabytes_per_second / self.ceiling if self.ceiling else None


def measure(experiment: Experiment, samples: int, rounds: int, bar: Bar) -> list[Rate]:
    """Measure every training dataset and the mixture, after a round to warm up. Raises DataError."""
    sources = assembly.open_sources(experiment)
    rates = []
    for done, source in enumerate(sources.train, start=1):
        rates.append(_one(source, sources.fields, experiment.objective.frames, samples, rounds))
        bar.show(done, source.title)
    rates.append(_mixture(experiment, sources, samples, rounds))
    bar.show(len(rates), "mixture")
    return rates


def _one(source: Source, fields: Fields, frames: int, samples: int, rounds: int) -> Rate:
    length = fields.history + frames
    population = source.population(length)
    generator = np.random.default_rng(_SEED)
    finished = torch.empty(length, len(fields.channels), *fields.grid)
    metadata = source.metadata
    size = samples * 4 * length * len(metadata.channels) * int(np.prod(metadata.grid))
    reads, wholes, ceilings = [], [], []
    for _ in range(rounds + 1):
        places = generator.integers(0, (population.trajectories, population.starts), (samples, 2)).tolist()
        ceilings.append(_sequential(source, size))
        wholes.append(_seconds_of_windows(source, places, finished))
        reads.append(_seconds_of_reads(source, places, length))
    whole, read = median(wholes[1:]), median(reads[1:])
    plain = [seconds for seconds in ceilings[1:] if seconds]
    return Rate(
        title=source.title,
        samples_per_second=samples / whole,
        megabytes_per_second=size / whole / 1e6,
        read=1e3 * read / samples,
        fit=1e3 * max(whole - read, 0.0) / samples,
        ceiling=size / median(plain) / 1e6 if plain else None,
    )


def _seconds_of_windows(source: Source, places: Sequence[Sequence[int]], finished: torch.Tensor) -> float:
    began = time.perf_counter()
    for trajectory, start in places:
        read_into(finished, source, trajectory, start)
    return time.perf_counter() - began


def _seconds_of_reads(source: Source, places: Sequence[Sequence[int]], length: int) -> float:
    began = time.perf_counter()
    for trajectory, start in places:
        np.array(source.read(trajectory, start, start + length), order="C")  # memory maps are read when copied
    return time.perf_counter() - began


def _sequential(source: Source, size: int) -> float | None:
    """Seconds to read as many bytes from the beginning of the dataset's file, again from there at its end."""
    trajectories = source.trajectories
    if not isinstance(trajectories, ArrayTrajectories):
        return None
    url = trajectories.parts[0].url
    if not is_local(url) or not os.path.isfile(local_path(url)):
        return None
    buffer = bytearray(8 * 2**20)
    left = size
    began = time.perf_counter()
    with open(local_path(url), "rb", buffering=0) as file:
        while left > 0:
            got = file.readinto(memoryview(buffer)[: min(left, len(buffer))])
            left -= got or 0
            if not got:
                file.seek(0)
    return time.perf_counter() - began


def _mixture(experiment: Experiment, sources: assembly.Sources, samples: int, rounds: int) -> Rate:
    """The loader that trains, with the config's sampler, batch size and workers."""
    each = max(samples // experiment.data.batch_size, 1)
    order = assembly.build_order(experiment, sources.train)
    plan = assembly.training_plan(experiment, order, 0, 1, range((rounds + 1) * each))
    windows = assembly.training_windows(experiment, sources)
    loaded = batches(make_loader(windows, plan, experiment.data.workers, pin=False))
    seconds, copies, size = [], [], 0
    for _ in range(rounds + 1):
        began = time.perf_counter()
        for _ in range(each):
            batch = next(loaded)
        seconds.append(time.perf_counter() - began)
        copies.append(_copy_seconds(batch))
        size = batch.inputs.nbytes + batch.targets.nbytes
    loaded.close()
    whole = median(seconds[1:]) / each
    return Rate(
        title="mixture",
        samples_per_second=experiment.data.batch_size / whole,
        megabytes_per_second=size / whole / 1e6,
        read=None,
        fit=None,
        ceiling=size / median(copies[1:]) / 1e6,
    )


def _copy_seconds(batch: Batch) -> float:
    """Seconds to copy a finished batch."""
    copies = [torch.empty_like(tensor) for tensor in (batch.inputs, batch.targets)]
    for copy in copies:
        copy.zero_()  # so that no page is touched for the first time below
    began = time.perf_counter()
    for copy, tensor in zip(copies, (batch.inputs, batch.targets), strict=True):
        copy.copy_(tensor)
    return time.perf_counter() - began


def rate_table(rates: Sequence[Rate]) -> Table:
    """The rates as a table for people."""
    table = Table()
    for heading in ("dataset", "samples/s", "MB/s", "read ms", "fit ms", "ceiling MB/s", "reached"):
        table.add_column(heading, justify="left" if heading == "dataset" else "right", overflow="fold")
    for rate in rates:
        numbers = (rate.samples_per_second, rate.megabytes_per_second, rate.read, rate.fit, rate.ceiling)
        cells = ["-" if number is None else f"{number:,.{0 if number >= 100 else 2}f}" for number in numbers]
        table.add_row(rate.title, *cells, "-" if rate.share is None else f"{rate.share:.0%}")
    return table
