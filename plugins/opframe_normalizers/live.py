"""Normalizations that shift and scale each channel, by numbers learnt of training data in float64."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, final

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from opframe.mixture.moments import Moments, moments
from opframe_registry import DataError, Metadata

_ROUNDING, _SMALLEST = float(np.finfo(np.float32).eps), float(np.finfo(np.float32).tiny)
"""A channel whose values differ by less, as a part of their size or at all, is constant: the rest is rounding."""


@final
class AsTheyAre:
    """Leaves frames alone."""

    def fit(self, frames: Iterable[Tensor]) -> None:
        """Learn nothing, and read no frame."""

    def apply(self, frames: Tensor) -> Tensor:
        """The frames themselves."""
        return frames

    def restore(self, frames: Tensor) -> Tensor:
        """A copy."""
        return frames.clone()

    def state_dict(self) -> Mapping[str, Tensor]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError where there is anything in it."""
        if state:
            raise ValueError(f"nothing is learnt here, but there is {', '.join(state)}")


_SUMS = ("count", "mean", "squares", "low", "high")


class Rule(Protocol):
    """Which numbers of a channel are learnt, and the straight line that they mean."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def learn(self, total: Moments) -> tuple[float, ...]:
        """The numbers of one channel, from the statistics of all its values."""
        ...

    def line(self, *numbers: Tensor) -> tuple[Tensor | None, Tensor]:
        """What is subtracted (None: nothing) and what is divided by, from the numbers of all channels."""
        ...


@final
@frozen
class ToDeviation:
    """To mean 0 and deviation 1; a channel that is constant up to rounding has deviation 1, and is only shifted."""

    names = ("mean", "deviation")

    def learn(self, total: Moments) -> tuple[float, float]:
        mean, deviation = float(total.mean), float(total.std)
        return mean, 1.0 if deviation <= max(_ROUNDING * abs(mean), _SMALLEST) else deviation

    def line(self, *numbers: Tensor) -> tuple[Tensor, Tensor]:
        mean, deviation = numbers
        return mean, deviation


@final
@frozen
class ToRootMeanSquare:
    """To a root mean square of 1; that of a channel which is zero everywhere counts as 1."""

    names = ("rms",)

    def learn(self, total: Moments) -> tuple[float]:
        rms = float(np.hypot(total.mean, total.std))
        return (1.0 if rms <= _SMALLEST else rms,)

    def line(self, *numbers: Tensor) -> tuple[None, Tensor]:
        return None, numbers[0]


@final
@frozen
class ToRange:
    """The smallest value to `lowest`, -1 or 0, and the largest to 1; a channel that is constant is only shifted."""

    lowest: int
    names = ("low", "high")

    def learn(self, total: Moments) -> tuple[float, float]:
        return float(total.low), float(total.high)

    def line(self, *numbers: Tensor) -> tuple[Tensor, Tensor]:
        low, high = numbers
        width, middle = (high - low, low) if self.lowest == 0 else ((high - low) / 2, (low + high) / 2)
        rounding = (_ROUNDING * torch.maximum(low.abs(), high.abs())).clamp(min=2 * _SMALLEST)
        constant = (high - low).abs() <= rounding
        return middle, torch.where(constant, 1.0, width)


@final
class Linear:
    """(frames - shift) / scale for each channel of a dataset, by the numbers of a rule."""

    def __init__(self, metadata: Metadata, rule: Rule) -> None:
        self._channels, self._axes, self._rule = len(metadata.channels), len(metadata.grid), rule
        self._names = metadata.channels
        self._numbers: tuple[Tensor, ...] = ()
        self._shift: Tensor | None = None
        self._scale = torch.ones(self._channels, dtype=torch.float64)

    def fit(self, frames: Iterable[Tensor]) -> None:
        """Learn from pieces (T, C, *grid), NaN left out. Raises DataError for a channel that there is nothing of."""
        self._learn(self._gather(frames))

    def summary(self, frames: Iterable[Tensor]) -> Mapping[str, Tensor]:
        """Count, mean, squared deviations and range of each channel, (C,) in float64."""
        total = self._gather(frames)
        return {name: torch.from_numpy(np.broadcast_to(getattr(total, name), self._channels).copy()) for name in _SUMS}

    def fit_summaries(self, summaries: Iterable[Mapping[str, Tensor]]) -> None:
        """Learn from those of all pieces. Raises DataError for a channel that there is nothing of."""
        total = self._gather(())
        for each in summaries:
            total += Moments(**{name: each[name].double().numpy() for name in _SUMS})
        self._learn(total)

    def _gather(self, frames: Iterable[Tensor]) -> Moments:
        total = moments(np.empty((self._channels, 0)), 1, np.empty((self._channels, 0), np.bool_))
        for piece in frames:
            total += _known(piece.detach().cpu().numpy())
        return total

    def _learn(self, total: Moments) -> None:
        for channel, count in zip(self._names, np.atleast_1d(total.count), strict=True):
            if count == 0:
                raise DataError(f"channel '{channel}' has no value in the training data that it could be normalised by")
        learnt = zip(*(self._rule.learn(total.at(channel)) for channel in range(self._channels)), strict=True)
        try:
            self._take([torch.tensor(numbers, dtype=torch.float64) for numbers in learnt])
        except ValueError as error:
            raise DataError(str(error)) from error

    def apply(self, frames: Tensor) -> Tensor:
        """Frames (..., C, *grid) to the units of the model, in place."""
        shift, scale = self._columns(frames)
        if shift is not None:
            frames.sub_(shift)
        return frames.div_(scale)

    def restore(self, frames: Tensor) -> Tensor:
        """Frames (..., C, *grid) in the data's units, as a new tensor."""
        shift, scale = self._columns(frames)
        return frames * scale if shift is None else frames * scale + shift

    def state_dict(self) -> Mapping[str, Tensor]:
        """The numbers of the rule by name, (C,) in float64."""
        return dict(zip(self._rule.names, self._numbers, strict=False))

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError unless there is one finite number for each channel, and the scale they mean is above 0."""
        names = self._rule.names
        if sorted(state) != sorted(names) or any(state[name].shape != (self._channels,) for name in names):
            found = ", ".join(f"{name} {tuple(value.shape)}" for name, value in state.items())
            raise ValueError(f"expected {' and '.join(names)} of {self._channels} channels each, got {found or 'none'}")
        self._take([state[name].double().cpu() for name in names])

    def _take(self, numbers: list[Tensor]) -> None:
        shift, scale = self._rule.line(*numbers)
        divisor = scale.float()  # as it will be for frames
        if not all(bool(value.isfinite().all()) for value in (*numbers, divisor)) or not bool((divisor > 0).all()):
            said = ", ".join(f"{name} {value.tolist()}" for name, value in zip(self._rule.names, numbers, strict=True))
            raise ValueError(f"numbers must be finite, and what frames are divided by above 0, but there is {said}")
        self._numbers, self._shift, self._scale = tuple(numbers), shift, scale

    def _columns(self, frames: Tensor) -> tuple[Tensor | None, Tensor]:
        """Shift and scale, shaped to broadcast against frames (..., C, *grid)."""
        shape = (self._channels, *[1] * self._axes)
        shift = None if self._shift is None else self._shift.to(frames).view(shape)
        return shift, self._scale.to(frames).view(shape)


def _known(frames: NDArray[np.float32]) -> Moments:
    """Statistics of each channel of frames (T, C, *grid), of the values that are not NaN."""
    whole = moments(frames, kept=2).over(0)
    return moments(frames, 2, ~np.isnan(frames)).over(0) if np.isnan(whole.mean).any() else whole
