"""Steady problems as trajectories of two frames: the problem and its solution."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from opframe.readers.arrays import ArrayTrajectories
from opframe_registry import DataError, Metadata


@frozen
class SteadyTrajectories:
    """Frame 0 has what poses the problem, and 0 in the predicted channels; frame 1 has the solution beside it.

    `solved` gives frame 1, `metadata` speaks of both.
    """

    metadata: Metadata
    solved: ArrayTrajectories

    def read(self, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
        """Frames [start, stop) as (T, C, *grid) float32. Raises DataError."""
        if not 0 <= start < stop <= 2:
            raise DataError(f"{self.solved.parts[0].url}: frames {start}..{stop} asked for, but there are 2 frames")
        solution = self.solved.read(trajectory, 0, 1)
        frames = np.repeat(solution, 2, axis=0)
        unknown = [self.metadata.channels.index(name) for name in self.metadata.predicted]
        frames[0, unknown] = 0.0
        return frames[start:stop]
