"""How long a roll-out stays like the truth."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import frozen
from torch import Tensor

from opframe_metrics.errors import Points, over_channels
from opframe_registry import Metadata


@frozen
class Correlation:
    """Pearson's correlation of prediction and truth over the points of a frame, and how long it is high."""

    threshold: float

    def __call__(self, prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> Mapping[str, Tensor]:
        """`correlation` (B, T), and `valid_time` (B,): the frames before the first one below the threshold."""
        of = Points(prediction.double(), truth.double(), mask)
        one, other = of.centred(of.prediction), of.centred(of.truth)
        spread = other.square().sum(of.space).sqrt()
        size = of.truth.square().sum(of.space).sqrt()
        counted = of.there & (spread > 1e-6 * size)  # a channel that is constant in space correlates with nothing
        found = (one * other).sum(of.space) / (one.square().sum(of.space).sqrt() * spread).clamp(min=1e-300)
        found = torch.where(found.isfinite(), found, 0.0)  # of a prediction that is not finite, or constant
        frames = over_channels(found, counted.expand(found.shape))
        missed = (frames < self.threshold).cumsum(1) > 0
        valid = (~missed & ~frames.isnan()).sum(1).to(frames.dtype)
        valid = valid.masked_fill(frames.isnan().all(1), torch.nan)
        return {"correlation": frames.to(truth.dtype), "valid_time": valid.to(truth.dtype)}
