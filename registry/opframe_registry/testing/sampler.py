"""What a sampler promises. What it claims of shares is held to by its means over blocks of steps.

Draws of a step may depend on each other, and steps near to each other may, so a block is what is drawn independently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import cast

import attrs
import numpy as np
from numpy.typing import NDArray

from opframe_registry.components import Sampler
from opframe_registry.testing.promise import Case, Promise, require
from opframe_registry.values import Order, Population, Window

POPULATIONS = (
    Population(starts=(4, 1, 9), weight=1.0),
    Population(starts=(3,) * 5, weight=3.0),
    Population(starts=(1,), weight=0.5),
)
_OTHERS: tuple[tuple[Population, ...], ...] = (
    (Population(starts=(1,), weight=1.0),),
    (Population(starts=(20,) * 50, weight=1e-3), Population(starts=(1, 6, 24), weight=1e3)),
    tuple(Population(starts=(3, 2), weight=1.0 + number) for number in range(40)),
)
_STEPS, _SIZE = 3000, 8
_BLOCKS = 30
_CHANCE = 6.0
"""How many standard errors two shares may differ by: with blocks as few, once in some 10⁶ times."""


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
        require(_is_inside(window, POPULATIONS), f"{window} is none of the windows that there are")
    for populations in _OTHERS:
        order = _order(case, populations)
        for window in (window for step in range(20) for window in order(2**40, step, 32)):
            require(_is_inside(window, populations), f"{window} is none of the windows that there are")


def _is_inside(window: Window, populations: Sequence[Population]) -> bool:
    known = 0 <= window.dataset < len(populations)
    starts = populations[window.dataset].starts if known else ()
    return 0 <= window.trajectory < len(starts) and 0 <= window.start < starts[window.trajectory]


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
    """Processes take slices of a global batch: an order gives a sequence, which is the same in every process."""
    windows = _order(case)(1, 2, 12)
    require(isinstance(windows, Sequence), f"an order gives {type(windows).__name__}, expected a sequence")
    joined = [window for rank in range(4) for window in windows[rank * 3 : rank * 3 + 3]]
    require(joined == list(windows), "slices of a batch do not make the batch")
    there = case.helper.call(_windows, case.component, 1, 2, 12)
    require(there == joined, "another process draws other windows for the same seed and step")


def _windows(sampler: Sampler, seed: int, step: int, size: int) -> list[Window]:
    return list(sampler.build(POPULATIONS)(seed, step, size))


def _shares(case: Case, seed: int, weights: Sequence[float]) -> NDArray[np.float64]:
    """The share of each dataset in each block of steps, (blocks, datasets)."""

    def draw() -> NDArray[np.float64]:
        pairs = zip(POPULATIONS, weights, strict=True)
        order = _order(case, [attrs.evolve(population, weight=weight) for population, weight in pairs])
        drawn = np.zeros((_BLOCKS, len(POPULATIONS)))
        for step in range(_STEPS):
            for window in order(seed, step, _SIZE):
                drawn[step * _BLOCKS // _STEPS, window.dataset] += _BLOCKS / (_STEPS * _SIZE)
        return drawn

    return case.once(("shares", seed, tuple(weights)), draw)


_WEIGHTS = tuple(population.weight for population in POPULATIONS)


def _difference(ones: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much the mean shares differ, in standard errors."""
    error = np.sqrt((ones.var(0, ddof=1) + others.var(0, ddof=1)) / _BLOCKS)
    difference: NDArray[np.float64] = (ones.mean(0) - others.mean(0)) / np.maximum(error, 1e-6)
    return difference


def _said(shares: NDArray[np.float64]) -> str:
    return ", ".join(f"{share:.3f}" for share in shares.mean(0))


def every_seed_has_the_same_shares(case: Case) -> None:
    """Datasets have the same shares whatever the seed, up to chance."""
    ones, others = _shares(case, 7, _WEIGHTS), _shares(case, 8, _WEIGHTS)
    same = bool((abs(_difference(ones, others)) < _CHANCE).all())
    require(same, f"the shares of the datasets are {_said(ones)} with one seed, {_said(others)} with another")


def weights_are_relative(case: Case) -> None:
    """All weights times the same number give the same shares, up to chance."""
    ones, others = _shares(case, 7, _WEIGHTS), _shares(case, 8, [12.0 * weight for weight in _WEIGHTS])
    same = bool((abs(_difference(ones, others)) < _CHANCE).all())
    require(same, f"the shares of the datasets are {_said(ones)}, and {_said(others)} with weights 12 times as high")


def more_weight_is_no_smaller_share(case: Case) -> None:
    """A dataset whose weight is raised is drawn as often, or more often; a sampler need not heed weights."""
    for raised in range(len(POPULATIONS)):
        weights = [weight * (8.0 if number == raised else 1.0) for number, weight in enumerate(_WEIGHTS)]
        before, after = _shares(case, 7, _WEIGHTS), _shares(case, 8, weights)
        told = f"datasets of the weights {_numbers(_WEIGHTS)} have the shares {_said(before)}; "
        told += f"with {_numbers(weights)} they are {_said(after)}"
        require(bool(_difference(after, before)[raised] > -_CHANCE), told)
    case.facts.append(told)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


PROMISES: tuple[Promise, ...] = (
    it_gives_as_many_windows_as_asked_for,
    windows_lie_inside_their_trajectories,
    it_is_a_function_of_seed_and_step,
    every_window_is_drawn,
    seeds_and_steps_differ,
    any_number_of_processes_share_a_batch,
    every_seed_has_the_same_shares,
    weights_are_relative,
    more_weight_is_no_smaller_share,
)
