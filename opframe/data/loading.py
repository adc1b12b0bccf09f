"""Batches for training, in an order that is a pure function of (seed, step)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import attrs
import numpy as np
import torch
from attrs import frozen
from torch.utils.data import Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from opframe.data.mixture import Source, read_frames
from opframe_registry import Batch, DataError, Fields, Order, Window


@frozen(kw_only=True)
class Address:
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

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[Address]]:
        share = self.batch_size // self.ranks
        mine = range(self.rank * share, (self.rank + 1) * share)
        for step in range(self.first, self.last):
            windows = self.order(self.seed, step, self.batch_size)
            yield [Address(window=windows[index], seed=sample_seed(self.seed, step, index)) for index in mine]


@frozen(kw_only=True)
class Sample:
    """One window, (T, C, *grid), with where it comes from."""

    frames: torch.Tensor
    dataset: int
    seed: int


@frozen(kw_only=True)
class Windows(Dataset[Sample | DataError]):
    """Reads windows. A bad one is returned, not raised: an exception would cross processes as a traceback."""

    sources: Sequence[Source]
    fields: Fields
    frames: int

    def __getitem__(self, address: Address) -> Sample | DataError:
        window = address.window
        source = self.sources[window.dataset]
        stop = window.start + self.fields.history + self.frames
        try:
            frames = read_frames(source, window.trajectory, window.start, stop, self.fields)
        except DataError as error:
            return error
        return Sample(frames=frames, dataset=window.dataset, seed=address.seed)


@frozen(kw_only=True)
class Collate:
    """Stacks samples into a Batch; in training every channel and point counts, padding included."""

    history: int

    def __call__(self, samples: Sequence[Sample | DataError]) -> Batch | DataError:
        good = []
        for sample in samples:
            if isinstance(sample, DataError):
                return sample
            good.append(sample)
        frames = torch.stack([sample.frames for sample in good])
        return Batch(
            inputs=frames[:, : self.history],
            targets=frames[:, self.history :],
            mask=torch.ones(1, 1, *[1] * (frames.ndim - 2)),
            dataset=torch.tensor([sample.dataset for sample in good]),
            seeds=torch.tensor([sample.seed for sample in good]),
        )


def make_loader(windows: Windows, plan: Plan, workers: int, pin: bool) -> StatefulDataLoader:
    """The loader of one process.

    The plan alone says where to begin, so the loader's own state, which is tied to a number of workers,
    is not kept. Its generator is its own: drawing from the global one would change the weights on resume.
    Workers are spawned, as HDF5 handles and thread pools do not survive a fork.
    """
    with warnings.catch_warnings():  # torchdata calls a function that torch has deprecated
        warnings.filterwarnings("ignore", message=".*set_vital")
        return StatefulDataLoader(
            windows,
            batch_sampler=plan,
            collate_fn=Collate(history=windows.fields.history),
            num_workers=workers,
            pin_memory=pin,
            multiprocessing_context="spawn" if workers else None,
            generator=torch.Generator().manual_seed(plan.seed),
        )


def batches(loader: StatefulDataLoader) -> Iterator[Batch]:
    """The loader's batches; a bad window is raised here, in the training process."""
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device, copied without waiting where memory is pinned."""
    return attrs.evolve(
        batch,
        **{
            name: getattr(batch, name).to(device, non_blocking=True)
            for name in ("inputs", "targets", "mask", "dataset")
        },
    )


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """Equal parts of a batch along its samples."""
    names = ("inputs", "targets", "dataset", "seeds")
    pieces = [getattr(batch, name).chunk(parts) for name in names]
    return [attrs.evolve(batch, **dict(zip(names, piece, strict=True))) for piece in zip(*pieces, strict=True)]
