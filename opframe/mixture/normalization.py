"""Bringing channels to mean 0 and standard deviation 1, and back."""

from __future__ import annotations

from attrs import frozen
from torch import Tensor


@frozen(kw_only=True)
class Normalization:
    """The mean and the standard deviation of each channel of one dataset, in its own units.

    Channels that pad the dataset to the width of the mixture stay exactly as they are.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def apply_(self, frames: Tensor) -> None:
        """Frames (T, C, *grid) in the dataset's units become those that a model sees, in place."""
        mean, deviation = self._columns(frames, axis=1)
        frames.sub_(mean).div_(deviation)

    def restore(self, frames: Tensor) -> Tensor:
        """What a model sees or predicts, (B, T, C, *grid), in the dataset's units."""
        mean, deviation = self._columns(frames, axis=2)
        return frames * deviation + mean

    def _columns(self, frames: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Mean and deviation of all channels, shaped to broadcast against frames with channels on an axis."""
        padding = frames.shape[axis] - len(self.mean)
        shape = (-1, *[1] * (frames.ndim - 1 - axis))
        mean = frames.new_tensor((*self.mean, *[0.0] * padding)).view(shape)
        return mean, frames.new_tensor((*self.deviation, *[1.0] * padding)).view(shape)
