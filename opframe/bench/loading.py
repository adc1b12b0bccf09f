"""`opframe data bench`: how fast windows are read, beside what the machine could do with the same bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from math import prod
from statistics import median

import numpy as np
import torch
from attrs import frozen
from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.table import Table

from opframe.bench.chunks import read_stored_chunks
from opframe.config.settings import Experiment
from opframe.console import Bar, tables_that_fit
from opframe.files.cache import remote_cache
from opframe.files.location import is_local, local_path
from opframe.mixture.loading import batches, make_loader
from opframe.mixture.resizing import resize
from opframe.mixture.source import Source, read_into
from opframe.readers.arrays import ArrayTrajectories
from opframe.run import assembly
from opframe_registry import Batch, Fields

Way = Callable[[int, int], object]
"""Something that is done with the window at a trajectory and a first frame."""

_SEED = 0


@frozen(kw_only=True)
class Rate:
    """How fast one dataset, or the mixture, is read; medians over rounds.

    `samples_per_second` counts finished windows, `megabytes_per_second` the bytes of their frames as they are stored
    (of the mixture: as they are finished), in float32. `read`, `decode` and `resize` are milliseconds of one window:
    reading with the ordering of axes; decompression of the chunks of a local HDF5 file; and bringing it to the grid of
    the model. What is left goes into looking for values that are not finite, and padding. `requests` and `received`,
    in MB, are what a window of remote data took of the network, rounds to warm up included. `ceiling` is what the speed
    is measured against, in the same MB/s: a plain sequential read of as many bytes of the same file, for the mixture a
    copy of finished batches in memory. None: there is nothing of the kind, or it cannot be measured here.
    """

    title: str
    samples_per_second: float
    megabytes_per_second: float
    ceiling: float | None
    read: float | None = None
    decode: float | None = None
    resize: float | None = None
    requests: float | None = None
    received: float | None = None

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
    size = samples * 4 * length * len(source.metadata.channels) * prod(source.metadata.grid)
    ways = _ways(source, torch.empty(length, len(fields.channels), *source.seen(fields).grid))
    times: dict[str, list[float]] = {name: [] for name in ways}
    counted, ceilings = [], []
    for _ in range(rounds + 1):
        chosen = generator.integers(0, population.trajectories, samples)
        starts = generator.integers(np.array(population.starts)[chosen])
        places = np.stack([chosen, starts], axis=1).tolist()
        ceilings.append(_sequential(source, size))
        before = remote_cache().counters
        for name, way in ways.items():
            times[name].append(_seconds(way, places))
            if name == "whole":
                counted.append(remote_cache().counters - before)
    seconds = {name: median(values[1:]) / samples for name, values in times.items()}
    decode = max(seconds["fetch"] - seconds["stored"], 0.0) if "stored" in seconds else None
    plain = [taken for taken in ceilings[1:] if taken]
    remote = 0 if _is_local(source) else len(counted) * samples
    return Rate(
        title=source.title,
        samples_per_second=1 / seconds["whole"],
        megabytes_per_second=size / samples / seconds["whole"] / 1e6,
        ceiling=size / median(plain) / 1e6 if plain else None,
        read=1e3 * max(seconds["read"] - (decode or 0.0), 0.0),
        decode=None if decode is None else 1e3 * decode,
        resize=1e3 * seconds["resize"] if "resize" in seconds else None,
        requests=sum(counters.requests for counters in counted) / remote if remote else None,
        received=sum(counters.bytes for counters in counted) / remote / 1e6 if remote else None,
    )


def _ways(source: Source, finished: torch.Tensor) -> dict[str, Way]:
    """What is timed, by its name: a finished window, and what there is of the steps that lead to it.

    What is read is copied, since it may be a memory map.
    """
    length, grid = len(finished), tuple(finished.shape[2:])
    dataset = source.trajectories

    def frames(trajectory: int, start: int) -> tuple[int, int, int]:
        return source.number(trajectory), start * source.stride, (start + length - 1) * source.stride + 1

    ways: dict[str, Way] = {
        "whole": lambda trajectory, start: read_into(finished, source, trajectory, start),
        "read": lambda trajectory, start: np.array(source.read(trajectory, start, start + length), order="C"),
    }
    if read_stored_chunks(dataset, *frames(0, 0)) is not None:
        ways["fetch"] = lambda trajectory, start: dataset.read(*frames(trajectory, start))
        ways["stored"] = lambda trajectory, start: read_stored_chunks(dataset, *frames(trajectory, start))
    if source.metadata.grid != grid:
        native = torch.zeros(length, len(source.metadata.channels), *source.metadata.grid)
        ways["resize"] = lambda trajectory, start: resize(native, grid, source.resize)
    return ways


def _seconds(way: Way, places: Sequence[Sequence[int]]) -> float:
    began = time.perf_counter()
    for trajectory, start in places:
        way(trajectory, start)
    return time.perf_counter() - began


def _is_local(source: Source) -> bool:
    dataset = source.trajectories
    return not isinstance(dataset, ArrayTrajectories) or is_local(dataset.parts[0].url)


def _sequential(source: Source, size: int) -> float | None:
    """Seconds to read as many bytes from the beginning of the dataset's file, again from there at its end."""
    trajectories = source.trajectories
    if not isinstance(trajectories, ArrayTrajectories) or not _is_local(source):
        return None
    url = trajectories.parts[0].url
    if not os.path.isfile(local_path(url)):
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
    seconds, rates, ceilings = [], [], []
    for _ in range(rounds + 1):
        began, size = time.perf_counter(), 0
        for _ in range(each):
            batch = next(loaded)
            size += _size(batch)  # batches differ where data keep their own grids
        seconds.append(time.perf_counter() - began)
        rates.append(size / seconds[-1])
        ceilings.append(_size(batch) / _copy_seconds(batch))
    loaded.close()
    whole = median(seconds[1:]) / each
    return Rate(
        title="mixture",
        samples_per_second=experiment.data.batch_size / whole,
        megabytes_per_second=median(rates[1:]) / 1e6,
        ceiling=median(ceilings[1:]) / 1e6,
    )


def _size(batch: Batch) -> int:
    return batch.inputs.nbytes + batch.targets.nbytes


def _copy_seconds(batch: Batch) -> float:
    """Seconds to copy a finished batch."""
    copies = [torch.empty_like(tensor) for tensor in (batch.inputs, batch.targets)]
    for copy in copies:
        copy.zero_()  # so that no page is touched for the first time below
    began = time.perf_counter()
    for copy, tensor in zip(copies, (batch.inputs, batch.targets), strict=True):
        copy.copy_(tensor)
    return time.perf_counter() - began


def rate_tables(rates: Sequence[Rate], console: Console) -> list[Table]:
    """The rates as a table for people, or several where the console is too narrow for one."""
    columns: dict[str, Callable[[Rate], float | None]] = {
        "samples/s": lambda rate: rate.samples_per_second,
        "MB/s": lambda rate: rate.megabytes_per_second,
        "read ms": lambda rate: rate.read,
        "decode ms": lambda rate: rate.decode,
        "resize ms": lambda rate: rate.resize,
        "requests": lambda rate: rate.requests,
        "received MB": lambda rate: rate.received,
        "ceiling MB/s": lambda rate: rate.ceiling,
    }
    shown = {name: value for name, value in columns.items() if any(value(rate) is not None for rate in rates)}
    rows = []
    for rate in rates:
        numbers = [value(rate) for value in shown.values()]
        cells = ["-" if number is None else f"{number:,.{0 if number >= 100 else 2}f}" for number in numbers]
        rows.append([rate.title, *cells, "-" if rate.share is None else f"{rate.share:.0%}"])
    return tables_that_fit(console, "", ["dataset", *shown, "reached"], rows, box=HEAVY_HEAD)
