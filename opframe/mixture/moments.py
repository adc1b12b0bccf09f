"""Mean, spread and range of numbers that come in pieces, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
_ARRAYS = ("mean", "squares", "low", "high")


@frozen(kw_only=True, eq=False)
class Moments:
    """Statistics of several sets of numbers at once; all arrays have one shape.

    `count` is that of every set, or an array where sets differ; an empty one has mean 0, low inf and high -inf.
    `squares` are sums of squared deviations from the mean, so that large means lose no digits (Welford; pieces are
    joined as Chan, Golub and LeVeque do).
    """

    count: int | Doubles
    mean: Doubles
    squares: Doubles
    low: Doubles
    high: Doubles

    def record(self) -> dict[str, Any]:
        """All numbers, to the last digit, as JSON takes them."""
        count = self.count if isinstance(self.count, int) else self.count.tolist()
        return {"count": count, **{name: getattr(self, name).tolist() for name in _ARRAYS}}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Moments:
        """The inverse of `record`."""
        count = record["count"]
        return cls(
            count=count if isinstance(count, int) else np.asarray(count, np.float64),
            **{name: np.asarray(record[name], np.float64) for name in _ARRAYS},
        )

    @property
    def std(self) -> Doubles:
        """Standard deviation of the whole population."""
        spread: Doubles = np.sqrt(self.squares / np.maximum(self.count, 1))
        return spread

    def __add__(self, other: Moments) -> Moments:
        """The statistics of both pieces together."""
        count = self.count + other.count
        total = np.maximum(count, 1)
        shift = other.mean - self.mean
        return Moments(
            count=count,
            mean=self.mean + shift * (other.count / total),
            squares=self.squares + other.squares + shift**2 * (self.count * other.count / total),
            low=np.minimum(self.low, other.low),
            high=np.maximum(self.high, other.high),
        )

    def at(self, index: int) -> Moments:
        """One of the sets along the first axis."""
        return Moments(
            count=self.count if isinstance(self.count, int) else self.count[index],
            mean=self.mean[index],
            squares=self.squares[index],
            low=self.low[index],
            high=self.high[index],
        )

    def over(self, axis: int) -> Moments:
        """The sets along an axis taken together."""
        if not isinstance(self.count, int):
            return self._over_unequal(axis)
        mean = self.mean.mean(axis)
        between = ((self.mean - np.expand_dims(mean, axis)) ** 2).sum(axis) * self.count
        return Moments(
            count=self.count * self.mean.shape[axis],
            mean=mean,
            squares=self.squares.sum(axis) + between,
            low=self.low.min(axis),
            high=self.high.max(axis),
        )

    def _over_unequal(self, axis: int) -> Moments:
        count = np.sum(self.count, axis)
        mean = np.sum(self.mean * self.count, axis) / np.maximum(count, 1)
        between = ((self.mean - np.expand_dims(mean, axis)) ** 2 * self.count).sum(axis)
        return Moments(
            count=count,
            mean=mean,
            squares=self.squares.sum(axis) + between,
            low=self.low.min(axis),
            high=self.high.max(axis),
        )


def moments(values: NDArray[Any], kept: int, there: NDArray[np.bool_] | None = None) -> Moments:
    """Statistics over all axes but the first `kept`, of the values that are `there`; None: of all."""
    if there is not None:
        return _moments_of_some(values, kept, there)
    flat = values.reshape(*values.shape[:kept], -1)
    mean = flat.mean(axis=-1, dtype=np.float64)
    # One set at a time: float64 copies of a whole window would take twice its memory.
    squares = np.empty(mean.shape)
    for index in np.ndindex(*mean.shape):
        deviation = flat[index] - mean[index]
        squares[index] = deviation @ deviation
    return Moments(
        count=flat.shape[-1],
        mean=mean,
        squares=squares,
        low=flat.min(axis=-1).astype(np.float64),
        high=flat.max(axis=-1).astype(np.float64),
    )


def _moments_of_some(values: NDArray[Any], kept: int, there: NDArray[np.bool_]) -> Moments:
    """Set by set, as each may have another number of values."""
    shape = values.shape[:kept]
    found = Moments(
        count=there.reshape(*shape, -1).sum(axis=-1).astype(np.float64),
        mean=np.zeros(shape),
        squares=np.zeros(shape),
        low=np.full(shape, np.inf),
        high=np.full(shape, -np.inf),
    )
    for index in np.ndindex(*shape):
        if (known := values[index][there[index]]).size:
            one = moments(known, kept=0)
            for name in ("mean", "squares", "low", "high"):
                getattr(found, name)[index] = getattr(one, name)
    return found
