"""Orders of windows: pure functions of (seed, step, size)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

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

    @property
    def shares(self) -> tuple[float, ...]:
        """What part of all samples each dataset has in the long run."""
        total = sum(population.weight for population in self.populations)
        return tuple(population.weight / total for population in self.populations)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Of the trajectories of all datasets, one after the other."""
        return np.concatenate([population.starts for population in self.populations])

    def __call__(self, seed: int, step: int, size: int) -> Sequence[Window]:
        """The `size` windows of global batch number `step`."""
        random = generator(seed, step)
        share = np.cumsum([population.weight for population in self.populations])
        dataset = np.searchsorted(share / share[-1], random.random(size), side="right")
        count = np.array([population.trajectories for population in self.populations])
        first = np.concatenate([[0], count.cumsum()])[dataset]
        trajectory = random.integers(count[dataset])
        return _windows(dataset, trajectory, random.integers(self._starts[first + trajectory]))


@frozen
class ProportionalOrder:
    """Draws from all windows of all datasets, numbered one after the other."""

    populations: tuple[Population, ...]

    @property
    def shares(self) -> tuple[float, ...]:
        """What part of all samples each dataset has in the long run."""
        windows = [sum(population.starts) for population in self.populations]
        return tuple(count / sum(windows) for count in windows)

    @cached_property
    def _first(self) -> NDArray[np.int64]:
        """The number of each trajectory's first window, over all datasets; the last is how many windows there are."""
        starts = np.concatenate([population.starts for population in self.populations])
        return np.concatenate([[0], starts.cumsum()])

    def __call__(self, seed: int, step: int, size: int) -> Sequence[Window]:
        """The `size` windows of global batch number `step`."""
        number = generator(seed, step).integers(self._first[-1], size=size)
        place = np.searchsorted(self._first[1:], number, side="right")  # among the trajectories of all datasets
        ends = np.cumsum([population.trajectories for population in self.populations])
        dataset = np.searchsorted(ends, place, side="right")
        trajectory = place - np.concatenate([[0], ends])[dataset]
        return _windows(dataset, trajectory, number - self._first[place])


def _windows(dataset: NDArray[np.intp], trajectory: NDArray[np.int64], start: NDArray[np.int64]) -> list[Window]:
    return [Window(*map(int, drawn)) for drawn in zip(dataset, trajectory, start, strict=True)]
