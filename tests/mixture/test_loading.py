"""Batches come in their order whoever reads them, in memory of their own, and threads end."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import attrs
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchdata import nodes

from opframe.mixture.ahead import AheadNode, read_ahead
from opframe.mixture.buffers import Buffers
from opframe.mixture.loading import Loader, Plan, Windows, batches, make_loader
from opframe.mixture.source import Source, open_source
from opframe_registry import Batch, Catalog, DataError, Dataset, Fields, Metadata, Window
from support import waves, write_prepared


@attrs.define
class Numbered:
    """Trajectory i holds i + frame / 100; reading takes longest for the first ones. Two readers at once are an error.

    `bad` is a trajectory whose frame 3 is not a number, reading `hangs` and those after it waits for `gate`.
    """

    gate: ClassVar[threading.Event] = threading.Event()

    grid: tuple[int, ...]
    bad: int | None = None
    hangs: int = 1000
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
        if trajectory >= self.hangs:
            self.gate.wait()
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


@pytest.fixture
def new_threads() -> Callable[[], int]:
    """The number of threads that were begun during the test. Those that have nothing left to do get a second to end."""
    before = set(threading.enumerate())

    def count(settled: bool = True) -> int:
        deadline = time.monotonic() + 1.0
        while (now := set(threading.enumerate()) - before) and settled and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(now)

    return count


def assert_same(one: Batch, two: Batch) -> None:
    for name in ("inputs", "targets", "mask", "seeds"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    for name, value in vars(one.conditions).items():
        assert torch.allclose(value, getattr(two.conditions, name), rtol=0, atol=0, equal_nan=True), name


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_threads_gives_the_same_batches_in_the_same_order(
    workers: int, new_threads: Callable[..., int]
) -> None:
    alone = list(batches(loader(0)))
    assert [batch.inputs[0, 0, 0, 0, 0].item() for batch in alone[:3]] == [0.0, 4.0, 8.0]
    shared = list(batches(loader(workers, seconds=0.05)))
    assert len(shared) == len(alone)
    for one, two in zip(alone, shared, strict=True):
        assert_same(one, two)
    assert not new_threads()


def test_the_last_batches_are_read_whole_though_other_threads_have_nothing_left_to_do() -> None:
    def slow(step: int, unwanted: Callable[[], bool]) -> list[bool]:
        return [time.sleep(0.02) or unwanted() for _ in range(4)]

    assert list(read_ahead(range(3), lambda step: step, slow, workers=3)) == [[False] * 4] * 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_window_is_named_after_the_batches_before_it(workers: int, new_threads: Callable[..., int]) -> None:
    words = r"same: trajectory 18 holds nan in frame 3, channel 'u', at grid point \(1, 0\)"
    received: list[Batch] = []
    with pytest.raises(DataError, match=words):
        received.extend(batches(loader(workers, bad=18)))
    assert len(received) == 4
    assert not new_threads()


@attrs.frozen
class Failing:
    """An order that has no batch number 3."""

    def __call__(self, seed: int, step: int, size: int) -> list[Window]:
        if step == 3:
            raise UnicodeDecodeError("utf-8", b"x", 0, 1, "is made of five things")
        return Counted()(seed, step, size)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_of_the_order_comes_as_it_is_after_the_batches_before_it(
    workers: int, new_threads: Callable[..., int]
) -> None:
    failing = loader(workers)
    failing = attrs.evolve(failing, plan=attrs.evolve(failing.plan, order=Failing()))
    received: list[Batch] = []
    with pytest.raises(UnicodeDecodeError, match="is made of five things"):
        received.extend(batches(failing))
    assert len(received) == 3
    assert not new_threads()


def test_threads_end_when_the_batches_are_given_up(new_threads: Callable[..., int]) -> None:
    with closing(batches(loader(2))) as stream:
        next(stream)
        assert new_threads(settled=False) >= 2
    assert not new_threads()


def test_a_read_that_hangs_is_waited_for_a_second_at_most(new_threads: Callable[..., int]) -> None:
    Numbered.gate.clear()
    stream = batches(loader(8, hangs=4))
    next(stream)
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 3.0
    assert new_threads(settled=False) >= 7  # one may have ended before it began another batch
    Numbered.gate.set()
    assert not new_threads()


ENDING = """
import signal
from tests.mixture.test_loading import batches, loader

signal.signal(signal.SIGINT, signal.default_int_handler)
left_open, waiting = batches(loader(2, hangs=4)), batches(loader(2, hangs=4))
next(left_open), next(waiting)
print("waiting", flush=True)
next(waiting)
"""


def test_reads_that_hang_do_not_keep_a_process_from_ending() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", ENDING]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert errors.rstrip().endswith("KeyboardInterrupt"), errors


def test_a_batch_that_is_given_up_is_not_read_to_its_end() -> None:
    windows, plan = (given := loader(0)).windows, given.plan
    asked = iter([False, False, True])
    windows.batch(plan.samples(0), Buffers().take, lambda: next(asked))
    assert sum(source.trajectories.reads for source in windows.sources) == 2


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


def test_ctrl_c_ends_the_wait_for_a_batch_and_the_threads(new_threads: Callable[..., int]) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        list(batches(loader(2, seconds=1.0)))
    timer.join()
    signal.signal(signal.SIGINT, before)
    assert not new_threads()


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


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_is_used_up_leaves_its_memory_at_once(workers: int) -> None:
    """No thread keeps what it has handed over, though all of them are busy with the next batches, and hang."""
    Numbered.gate.clear()
    threading.Timer(0.2, Numbered.gate.set).start()
    with closing(batches(loader(workers, hangs=16))) as stream:
        used = [weakref.ref(next(stream)) for _ in range(4)]
        assert [batch() for batch in used] == [None] * 4


@pytest.mark.parametrize("workers", [0, 2])
def test_the_state_of_the_steps_is_what_was_handed_out_and_not_what_was_read_ahead(workers: int) -> None:
    def stream() -> nodes.Loader:
        node = AheadNode(range(3, 12), lambda step: step, lambda step, _: step, workers)
        return nodes.Loader(node, restart_on_stop_iteration=False)

    first, second = stream(), stream()
    taken = iter(first)
    assert [next(taken) for _ in range(4)] == [3, 4, 5, 6]
    time.sleep(0.05)
    second.load_state_dict(first.state_dict())
    assert list(second) == [7, 8, 9, 10, 11]
    assert list(taken) == [7, 8, 9, 10, 11]


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


def test_threads_compute_alone_and_leave_the_number_of_threads_of_training_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: set[int] = set()
    read = Numbered.read

    def looked_at(self: Numbered, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
        seen.add(torch.get_num_threads())
        return read(self, trajectory, start, stop)

    monkeypatch.setattr(Numbered, "read", looked_at)
    torch.set_num_threads(2)
    try:
        list(batches(loader(2)))
        assert (seen, torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(1)
