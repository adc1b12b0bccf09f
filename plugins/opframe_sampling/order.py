"""Orders of windows: pure functions of (seed, step, size)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from opframe_registry import Population, Window


def generator(seed: int, step: int) -> np.random.Generator:
    """Random numbers at the address (seed, step)."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, step], dtype=np.uint64)))


@frozen
class BalancedOrder:
    """Draws a dataset by weight, then one of its trajectories, then a start."""

    populations: tuple[Population, ...]

    def __call__(self, seed: int, step: int, size: int) -> Sequence[Window]:
        """The `size` windows of global batch number `step`."""
        random = generator(seed, step)
        share = np.cumsum([population.weight for population in self.populations])
        dataset = np.searchsorted(share / share[-1], random.random(size), side="right")
        count = np.array([population.trajectories for population in self.populations])
        first = np.concatenate([[0], count.cumsum()])[dataset]  # in an order of the trajectories of all datasets
        starts = np.concatenate([population.starts for population in self.populations])
        trajectory = random.integers(count[dataset])
        return _windows(dataset, trajectory, random.integers(starts[first + trajectory]))


@frozen
class ProportionalOrder:
    """Draws from all windows of all datasets, numbered one after the other."""

    populations: tuple[Population, ...]

    def __call__(self, seed: int, step: int, size: int) -> Sequence[Window]:
        """The `size` windows of global batch number `step`."""
        end = np.cumsum(np.concatenate([population.starts for population in self.populations]))
        number = generator(seed, step).integers(end[-1], size=size)
        place = np.searchsorted(end, number, side="right")  # among the trajectories of all datasets
        ends = np.cumsum([population.trajectories for population in self.populations])
        dataset = np.searchsorted(ends, place, side="right")
        trajectory = place - np.concatenate([[0], ends])[dataset]
        return _windows(dataset, trajectory, number - np.concatenate([[0], end])[place])


def _windows(dataset: NDArray[np.intp], trajectory: NDArray[np.int64], start: NDArray[np.int64]) -> list[Window]:
    return [Window(*map(int, drawn)) for drawn in zip(dataset, trajectory, start, strict=True)]
