"""What a sampler promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import cast

from opframe_registry.components import Sampler
from opframe_registry.testing.promise import Case, Promise, require
from opframe_registry.values import Order, Population, Window

POPULATIONS = (
    Population(starts=(4, 1, 9), weight=1.0),
    Population(starts=(3,) * 5, weight=3.0),
    Population(starts=(1,), weight=0.5),
)
_STEPS, _SIZE = 3000, 8


def _order(case: Case, populations: Sequence[Population] = POPULATIONS) -> Order:
    return cast("Sampler", case.component).build(populations)


def _drawn(case: Case) -> Counter[Window]:
    """How often each window comes in many steps."""

    def draw() -> Counter[Window]:
        order = _order(case)
        return Counter(window for step in range(_STEPS) for window in order(7, step, _SIZE))

    return case.once("drawn", draw)


def it_gives_as_many_windows_as_asked_for(case: Case) -> None:
    """An order gives `size` windows for every seed and step."""
    order = _order(case)
    for size in (1, 7, 32):
        for step in (0, 5, 10**6):
            count = len(order(2**40, step, size))
            require(count == size, f"{count} windows of {size} at step {step}")


def windows_lie_inside_their_trajectories(case: Case) -> None:
    """Every window is of a dataset and trajectory that there are, and begins where one may."""
    for window in _drawn(case):
        right = 0 <= window.dataset < len(POPULATIONS)
        starts = POPULATIONS[window.dataset].starts if right else ()
        right = 0 <= window.trajectory < len(starts) and 0 <= window.start < starts[window.trajectory]
        require(right, f"{window} is none of the windows that there are")


def it_is_a_function_of_seed_and_step(case: Case) -> None:
    """The windows of a step depend on (seed, step, size) alone, in whatever order steps are asked for."""
    order, other = _order(case), _order(case)
    forwards = [list(order(3, step, _SIZE)) for step in range(20)]
    backwards = [list(other(3, step, _SIZE)) for step in reversed(range(20))][::-1]
    require(forwards == backwards, "steps that are asked for in another order have other windows")
    require(list(order(3, 4, _SIZE)) == forwards[4], "a step that is asked for again has other windows")


def every_window_is_drawn(case: Case) -> None:
    """In the long run, no window of any dataset is left out."""
    drawn = _drawn(case)
    for number, population in enumerate(POPULATIONS):
        for trajectory, starts in enumerate(population.starts):
            for start in range(starts):
                window = Window(number, trajectory, start)
                require(drawn[window] > 0, f"{window} never comes in {_STEPS} steps of {_SIZE}")


def seeds_and_steps_differ(case: Case) -> None:
    """Other steps give other windows."""
    order = _order(case)
    batches = {tuple(order(0, step, _SIZE)) for step in range(50)}
    require(len(batches) > 1, "all steps have the same windows")


def any_number_of_processes_share_a_batch(case: Case) -> None:
    """A process takes its slice of a global batch: an order does not know of processes, and gives a sequence."""
    windows = _order(case)(1, 2, 12)
    joined = [window for rank in range(4) for window in windows[rank * 3 : rank * 3 + 3]]
    require(joined == list(windows), "slices of a batch do not make the batch")


PROMISES: tuple[Promise, ...] = (
    it_gives_as_many_windows_as_asked_for,
    windows_lie_inside_their_trajectories,
    it_is_a_function_of_seed_and_step,
    every_window_is_drawn,
    seeds_and_steps_differ,
    any_number_of_processes_share_a_batch,
)
