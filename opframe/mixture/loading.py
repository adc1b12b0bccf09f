"""Batches for training, in an order that is a pure function of (seed, step)."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Generator, Iterator, Sequence
from functools import cached_property
from queue import SimpleQueue

import attrs
import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from opframe.mixture.ahead import Unwanted, read_ahead
from opframe.mixture.buffers import Buffers, Memory, page_locked
from opframe.mixture.conditions import Known, all_valid, changed, in_parts, known_of, valid_points
from opframe.mixture.source import Source, read_into
from opframe_registry import Batch, Fields, Order, Window


@frozen(kw_only=True)
class Sample:
    """One sample of the global batch: its window, and the seed of its random numbers."""

    window: Window
    seed: int


def sample_seed(seed: int, step: int, index: int) -> int:
    """The seed of sample `index` of global batch `step`."""
    return int(np.random.SeedSequence([seed, step, index]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@frozen(kw_only=True)
class Plan:
    """Which samples this process loads: its slice of every global batch in [first, last)."""

    order: Order
    seed: int
    batch_size: int
    rank: int
    ranks: int
    first: int
    last: int

    @property
    def steps(self) -> range:
        """The numbers of the global batches."""
        return range(self.first, self.last)

    def __iter__(self) -> Iterator[list[Sample]]:
        return map(self.samples, self.steps)

    def samples(self, step: int) -> list[Sample]:
        """This process's samples of a global batch: as many as any other has, or one more or less."""
        first, last = (self.batch_size * rank // self.ranks for rank in (self.rank, self.rank + 1))
        mine = range(first, last)
        windows = self.order(self.seed, step, self.batch_size)
        return [Sample(window=windows[index], seed=sample_seed(self.seed, step, index)) for index in mine]


@frozen(kw_only=True)
class Windows:
    """Reads windows of `fields.history` and `frames` frames into batches."""

    sources: Sequence[Source]
    fields: Fields
    frames: int

    def batch(self, samples: Sequence[Sample], memory: Memory, unwanted: Unwanted) -> Batch:
        """Read a batch into memory of the given kind. Raises DataError naming the window that is bad.

        All windows have the grid of the first one. In training every channel and point counts, padding included, but
        for missing values. A batch that is unwanted is left as it is.
        """
        history, first = self.fields.history, self.sources[samples[0].window.dataset]
        grid = first.seen(self.fields).grid
        frames = memory((len(samples), history + self.frames, len(self.fields.channels), *grid))
        complete = all(self.sources[sample.window.dataset].metadata.missing is None for sample in samples)
        known = None if complete else torch.ones(frames.shape, dtype=torch.bool)
        for index, sample in enumerate(samples):
            if unwanted():
                break
            window = sample.window
            there = None if known is None else known[index]
            read_into(frames[index], self.sources[window.dataset], window.trajectory, window.start, there)
        windows = [(sample.window.dataset, sample.window.trajectory) for sample in samples]
        valid = all_valid(grid) if known is None else valid_points(known[:, :history])
        return Batch(
            inputs=frames[:, :history],
            targets=frames[:, history:],
            mask=torch.ones([1] * frames.ndim) if known is None else _mask(known[:, history:], memory),
            conditions=self._known.of(windows, valid),
            seeds=torch.tensor([sample.seed for sample in samples]),
        )

    @cached_property
    def _known(self) -> Known:
        return known_of(self.sources, self.fields)


def _mask(known: Tensor, memory: Memory) -> Tensor:
    """One where a value counts, zero elsewhere."""
    return memory(tuple(known.shape)).copy_(known)


@frozen(kw_only=True)
class Loader:
    """The batches of one process: read when they are asked for, or ahead of time by `workers` threads."""

    windows: Windows
    plan: Plan
    workers: int
    memory: Memory


def make_loader(windows: Windows, plan: Plan, workers: int, pin: bool) -> Loader:
    """The loader of one process; with `pin` it reads into page-locked memory, for copies to a GPU that do not wait.

    The plan alone says where to begin and what is in a batch: it does not depend on the number of workers.
    """
    memory = page_locked if pin else Buffers().take
    return Loader(windows=windows, plan=plan, workers=workers, memory=memory)


def batches(loader: Loader) -> Generator[Batch]:
    """The loader's batches in order. Raises DataError where a window is bad.

    Closing the generator, an exception, and its end all end the threads.
    """
    yield from read_ahead(loader.plan.steps, loader.plan.samples, _Readers(loader).read, loader.workers)


class _Readers:
    """Threads take a reader of their own for the time of a batch: open files are not used by two at once.

    Readers are copied as they would be for another process, which datasets provide for. Without threads the one reader
    serves.
    """

    def __init__(self, loader: Loader) -> None:
        self._memory = loader.memory
        # page-locked memory belongs to a device, which is chosen thread by thread
        self._device = torch.cuda.current_device() if loader.memory is page_locked else None
        self._threads = bool(loader.workers)
        self._this_thread = threading.local()
        self._idle: SimpleQueue[Windows] = SimpleQueue()
        for _ in range(loader.workers):
            self._idle.put(pickle.loads(pickle.dumps(loader.windows)))
        if not loader.workers:
            self._idle.put(loader.windows)

    def read(self, samples: Sequence[Sample], unwanted: Unwanted) -> Batch:
        """Read a batch in any thread."""
        if self._threads and not hasattr(self._this_thread, "begun"):
            self._begin_thread()
        windows = self._idle.get()
        try:
            return windows.batch(samples, self._memory, unwanted)
        finally:
            self._idle.put(windows)

    def _begin_thread(self) -> None:
        """The cores are for training."""
        torch.set_num_threads(1)
        if self._device is not None:
            torch.cuda.set_device(self._device)
        self._this_thread.begun = True


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device, copied without waiting where memory is pinned."""

    def there(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    moved = {name: there(getattr(batch, name)) for name in ("inputs", "targets", "mask")}
    return attrs.evolve(batch, **moved, conditions=changed(batch.conditions, there))


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """So many parts of a batch along its samples, equal ones where their number allows it."""
    names = ("inputs", "targets", "seeds", "mask", "conditions")
    pieces: list[Sequence[object]] = [getattr(batch, name).tensor_split(parts) for name in names[:3]]
    whole = len(batch.mask) != len(batch.inputs)
    pieces.append((batch.mask,) * parts if whole else batch.mask.tensor_split(parts))
    pieces.append(in_parts(batch.conditions, parts))
    return [attrs.evolve(batch, **dict(zip(names, piece, strict=True))) for piece in zip(*pieces, strict=True)]
