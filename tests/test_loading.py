"""Batches come in their order whoever reads them, in memory of their own, and threads end."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from contextlib import closing
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from opframe.data.buffers import Buffers
from opframe.data.loading import Loader, Plan, Windows, batches, make_loader
from opframe.data.mixture import Source, open_source
from opframe_registry import Batch, Catalog, DataError, Dataset, Fields, Metadata, Window
from support import waves, write_prepared


@attrs.define
class Numbered:
    """Trajectory i holds i + frame / 100; reading takes longest for the first ones. Two readers at once are an error.

    `bad` is a trajectory whose frame 3 is not a number.
    """

    grid: tuple[int, ...]
    bad: int | None = None
    seconds: float = 0.0
    busy: bool = False
    reads: int = 0

    @property
    def metadata(self) -> Metadata:
        return Metadata(trajectories=100, frames=6, grid=self.grid, channels=("u",), predicted=("u",))

    def read(self, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
        assert not self.busy, "two threads read with one reader"
        self.busy = True
        time.sleep(self.seconds / (1 + trajectory))
        self.busy, self.reads = False, self.reads + 1
        frames = np.empty((stop - start, 1, *self.grid), "f4")
        frames[:] = trajectory + np.arange(start, stop).reshape(-1, 1, *[1] * len(self.grid)) / 100
        if trajectory == self.bad:
            frames[3 - start, 0, 1] = np.nan
        return frames


@attrs.frozen
class Counted:
    """Sample k of the run is trajectory k, of alternating datasets."""

    def __call__(self, seed: int, step: int, size: int) -> list[Window]:
        return [Window(number % 2, number, number % 2) for number in range(step * size, (step + 1) * size)]


def loader(workers: int, steps: int = 12, **options: object) -> Loader:
    """Batches of four windows of a mixture of 4^2 and 8^2 points, of four frames."""
    sources = [
        Source(title=title, weight=1.0, rollout=1, trajectories=Numbered(grid=grid, **options))
        for title, grid in (("same", (8, 8)), ("small", (4, 4)))
    ]
    fields = Fields(channels=("u", "v"), grid=(8, 8), history=3)
    plan = Plan(order=Counted(), seed=7, batch_size=4, rank=0, ranks=1, first=0, last=steps)
    return make_loader(Windows(sources=sources, fields=fields, frames=1), plan, workers, pin=False)


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


def assert_same(one: Batch, two: Batch) -> None:
    for attribute in attrs.fields(Batch):
        assert torch.equal(getattr(one, attribute.name), getattr(two, attribute.name)), attribute.name


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_threads_gives_the_same_batches_in_the_same_order(workers: int) -> None:
    alone = list(batches(loader(0)))
    assert [batch.inputs[0, 0, 0, 0, 0].item() for batch in alone[:3]] == [0.0, 4.0, 8.0]
    shared = list(batches(loader(workers, seconds=0.05)))
    assert len(shared) == len(alone)
    for one, two in zip(alone, shared, strict=True):
        assert_same(one, two)
    assert not loader_threads()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_window_is_named_after_the_batches_before_it(workers: int) -> None:
    words = r"same: trajectory 18 holds nan in frame 3, channel 'u', at grid point \(1, 0\)"
    received: list[Batch] = []
    with pytest.raises(DataError, match=words):
        received.extend(batches(loader(workers, bad=18)))
    assert len(received) == 4
    assert not loader_threads()


def test_threads_end_when_the_batches_are_given_up() -> None:
    with closing(batches(loader(2))) as stream:
        next(stream)
        assert loader_threads()
    assert not loader_threads()


def test_threads_do_not_read_further_ahead_than_two_batches_each() -> None:
    memory = Counting()
    with closing(batches(attrs.evolve(loader(2, steps=100), memory=memory))) as stream:
        for taken in range(1, 4):
            next(stream)
            time.sleep(0.2)
            assert memory.taken == taken + 4


def test_batches_that_are_given_up_are_not_read_any_more() -> None:
    memory = Counting()
    with closing(batches(attrs.evolve(loader(1, seconds=0.5), memory=memory))) as stream:
        next(stream)
    assert memory.taken == 2


@attrs.define
class Counting:
    """Fresh memory, and how often it was asked for."""

    taken: int = 0

    def __call__(self, shape: tuple[int, ...]) -> torch.Tensor:
        self.taken += 1
        return torch.empty(shape)


def test_ctrl_c_ends_the_wait_for_a_batch_and_the_threads() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        list(batches(loader(2, seconds=1.0)))
    timer.join()
    signal.signal(signal.SIGINT, before)
    assert not loader_threads()


def test_memory_is_used_again_only_when_no_view_of_it_is_left() -> None:
    buffers = Buffers()
    first = buffers.take((4, 5))
    place, view = first.data_ptr(), first[1:, 2]
    view.fill_(3.0)
    del first
    assert buffers.take((4, 5)).data_ptr() != place
    assert view.tolist() == [3.0, 3.0, 3.0]
    del view
    assert place in {tensor.data_ptr() for tensor in [buffers.take((2, 3)), buffers.take((2, 3))]}
    assert buffers.take((100, 5)).shape == (100, 5)


def test_reading_ten_thousand_windows_takes_no_more_memory_than_a_hundred() -> None:
    buffers = Buffers()
    places = {buffers.take((3, 2)).data_ptr() for _ in range(10_000)}
    assert len(places) == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads what Linux says of a process")
def test_fifty_thousand_windows_take_no_more_memory_than_a_thousand(tmp_path: Path, catalog: Catalog) -> None:
    """Of files that are memory maps and files that are decoded, resized or not, which are opened again at times."""
    options: tuple[dict[str, object], ...] = ({}, {"compression": "gzip", "chunks": (1, 8, 8, 2, 1)})
    sources = []
    for name, option in zip(("plain", "gzip"), options, strict=True):
        write_prepared(tmp_path / f"{name}.h5", waves(3, 6, 8), **option)
        component = catalog.get(Dataset, "prepared")(url=str(tmp_path / f"{name}.h5"), test=1)
        sources.append(open_source(component, component.build("train", tmp_path), 3, 1, "train"))
    fields = Fields(channels=("u", "v"), grid=(8, 8), history=3)
    plan = Plan(order=Recurring(), seed=7, batch_size=50, rank=0, ranks=1, first=0, last=1020)
    used = []
    for step, _ in enumerate(batches(make_loader(Windows(sources=sources, fields=fields, frames=1), plan, 0, False))):
        if step % 100 == 0:
            sources[step // 100 % 2].trajectories.stores._open.clear()
        if step in (20, 1019):
            used.append(memory_of_its_own())
    assert used[1] - used[0] < 2_000_000, "more than 40 bytes a window"


@attrs.frozen
class Recurring:
    """Windows of two trajectories, one in fifty of the second dataset."""

    def __call__(self, seed: int, step: int, size: int) -> list[Window]:
        return [Window(int(number == 0), step % 2, number % 3) for number in range(size)]


def memory_of_its_own() -> int:
    """Bytes of main memory that only this process has, files that are mapped left out."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def test_threads_leave_the_number_of_threads_of_training_alone() -> None:
    torch.set_num_threads(2)
    try:
        list(batches(loader(2)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
