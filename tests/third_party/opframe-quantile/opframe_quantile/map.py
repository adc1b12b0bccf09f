"""A map of straight pieces for each channel, and its inverse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from opframe_registry import DataError, Metadata

if TYPE_CHECKING:
    from opframe_quantile import Quantile

NEAR = 0.01  # deviations: quantiles that are nearer are one


class QuantileMap:
    """What is learnt is (C, knots) `values`, ascending, and the `scores` that they become, ascending too."""

    def __init__(self, settings: Quantile, metadata: Metadata) -> None:
        self.settings, self.metadata = settings, metadata
        self.values = torch.empty(0)
        self.scores = torch.empty(0)

    def fit(self, frames: Iterable[Tensor]) -> None:
        """Take the quantiles of the values that are not NaN, in one pass. Raises DataError where a channel has none."""
        samples = [Sample(self.settings.sample, channel) for channel in range(len(self.metadata.channels))]
        for piece in frames:
            for channel, sample in enumerate(samples):
                sample.add(piece[:, channel])
        knots = []
        for name, sample in zip(self.metadata.channels, samples, strict=True):
            if not len(sample.values):
                raise DataError(f"normalizer: channel '{name}' has no value to learn quantiles of")
            knots.append(self._knots(sample))
        self.values = torch.stack([values for values, _ in knots]).float()
        self.scores = torch.stack([scores for _, scores in knots]).float()

    def apply(self, frames: Tensor) -> Tensor:
        """From the dataset's units, (..., C, *grid), to scores; NaN stays NaN."""
        return self._mapped(frames, self.values, self.scores)

    def restore(self, frames: Tensor) -> Tensor:
        """From scores to the dataset's units."""
        return self._mapped(frames, self.scores, self.values)

    def state_dict(self) -> Mapping[str, Tensor]:
        """The knots of the map."""
        return {"values": self.values, "scores": self.scores}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take knots. Raises ValueError where they are not those of these channels."""
        values, scores = state["values"], state["scores"]
        channels = len(self.metadata.channels)
        if values.shape != scores.shape or values.ndim != 2 or len(values) != channels or values.shape[1] < 2:
            raise ValueError(
                f"knots of {tuple(values.shape)} values and {tuple(scores.shape)} scores do not fit {channels} channels"
            )
        self.values, self.scores = values.float().clone(), scores.float().clone()

    def _mapped(self, frames: Tensor, origin: Tensor, target: Tensor) -> Tensor:
        exact = torch.promote_types(frames.dtype, torch.float32)
        origin, target = origin.to(frames.device, exact), target.to(frames.device, exact)
        axes = len(self.metadata.grid)
        along = frames.movedim(frames.ndim - axes - 1, 0).to(exact)  # (C, ...)
        flat = along.flatten(1).contiguous()
        # the piece that a value lies in; those beyond the ends belong to the first and the last
        piece = torch.searchsorted(origin[:, 1:-1].contiguous(), flat.detach(), right=True)
        slope = target.diff(dim=1) / origin.diff(dim=1)
        begin, rise, base = (table.gather(1, piece) for table in (origin, slope, target))
        mapped = torch.addcmul(base, flat - begin, rise).view(along.shape)
        return mapped.movedim(0, frames.ndim - axes - 1).to(frames.dtype)

    def _knots(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """`pieces` + 1 values and scores, strictly ascending; more than there are different values go on beyond."""
        shares = torch.linspace(0, 1, self.settings.pieces + 1, dtype=torch.float64)
        quantiles = torch.quantile(sample.values.double(), shares)
        quantiles[0], quantiles[-1] = sample.least, sample.greatest
        scores = self._scores(shares)
        deviation = float(sample.values.double().std(correction=0))
        if deviation <= 1e-6 * max(abs(sample.least), abs(sample.greatest)):  # rounding, or constant
            centre = (sample.least + sample.greatest) / 2
            scale = abs(centre) or 1.0
            kept, means = [centre - scale, centre, centre + scale], [-1.0, 0.0, 1.0]
        else:
            rounding = 4 * torch.finfo(torch.float32).eps * max(abs(sample.least), abs(sample.greatest))
            kept, means = _apart(quantiles.tolist(), scores.tolist(), max(NEAR * deviation, rounding))
        return _filled(kept, self.settings.pieces + 1), _filled(means, self.settings.pieces + 1)

    def _scores(self, shares: Tensor) -> Tensor:
        if self.settings.to == "uniform":
            return 2 * shares - 1
        inside = 0.5 / self.settings.pieces  # the ends of a normal distribution are infinitely far
        scores: Tensor = torch.special.ndtri(shares.clamp(inside, 1 - inside))
        return scores


class Sample:
    """Values of one channel, of which every one that is seen is as likely to be among those kept."""

    def __init__(self, size: int, channel: int) -> None:
        self.size = size
        self.values, self._order = torch.empty(0), torch.empty(0, dtype=torch.float64)
        self.least, self.greatest = float("inf"), float("-inf")
        self._generator = torch.Generator().manual_seed(channel)

    def add(self, values: Tensor) -> None:
        """See some more; NaN is none. The values with the lowest of random numbers are kept."""
        values = values.flatten().cpu().float()
        values = values[~values.isnan()]
        if not len(values):
            return
        self.least = min(self.least, float(values.min()))
        self.greatest = max(self.greatest, float(values.max()))
        order = torch.rand(len(values), generator=self._generator, dtype=torch.float64)
        values, order = torch.cat([self.values, values]), torch.cat([self._order, order])
        if len(values) > self.size:
            order, kept = order.topk(self.size, largest=False, sorted=False)
            values = values[kept]
        self.values, self._order = values, order


def _apart(values: list[float], scores: list[float], near: float) -> tuple[list[float], list[float]]:
    """Values at least `near` apart, each with the mean of the scores of those that it stands for."""
    groups: list[tuple[float, list[float]]] = []
    for value, score in zip(values, scores, strict=True):
        if groups and value - groups[-1][0] < near:
            groups[-1][1].append(score)
        else:
            groups.append((value, [score]))
    means = [sum(group) / len(group) for _, group in groups]
    return [value for value, _ in groups], means


def _filled(knots: list[float], count: int) -> Tensor:
    """As many knots as there are of every channel; the last piece goes on where there are fewer."""
    step = knots[-1] - knots[-2]
    more = [knots[-1] + step * (index + 1) for index in range(count - len(knots))]
    return torch.tensor([*knots, *more], dtype=torch.float64)
