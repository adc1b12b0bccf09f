"""The windows of a curriculum: a pure function of (seed, step, size)."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from opframe_registry import Population, Window

if TYPE_CHECKING:
    from opframe_curriculum import Curriculum


class CurriculumOrder:
    """Draws a dataset, one of its trajectories, and one of the windows that are open."""

    def __init__(self, settings: Curriculum, populations: Sequence[Population]) -> None:
        self.settings, self.populations = settings, tuple(populations)
        weights = np.array([population.weight for population in populations])
        self._shares = weights / weights.sum()

    def share(self, step: int) -> float:
        """The fraction of a trajectory's windows that are open."""
        progress = min(step / self.settings.steps, 1.0)
        return self.settings.begin + (1 - self.settings.begin) * progress

    def __call__(self, seed: int, step: int, size: int) -> Sequence[Window]:
        """The `size` windows of global batch number `step`."""
        random = np.random.default_rng([seed, step])
        share = self.share(step)
        windows = []
        for dataset in random.choice(len(self.populations), size, p=self._shares).tolist():
            starts = self.populations[dataset].starts
            trajectory = int(random.integers(len(starts)))
            first = ceil(share * starts[trajectory])
            windows.append(Window(dataset, trajectory, int(random.integers(first))))
        return windows
