"""Whether a roll-out keeps what its equation keeps."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from opframe_metrics.errors import Points
from opframe_registry import Metadata


def conservation(prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> Mapping[str, Tensor]:
    """How far the mean density of each conserved quantity is off, over the mean size of the true one: (B, T)."""
    of = Points(prediction.double(), truth.double(), mask)
    errors = []
    for names in metadata.conserved.values():
        channels = [metadata.channels.index(name) for name in names]
        counted = of.mask[:, :, channels].all(2)
        points = counted.flatten(2).sum(2)
        density, expected = (
            torch.where(counted, _product(values[:, :, channels]), 0.0) for values in (of.prediction, of.truth)
        )
        size = expected.abs().flatten(2).sum(2)
        error = (density - expected).flatten(2).sum(2).abs() / size.clamp(min=1e-300)
        errors.append(error.masked_fill((points == 0) | (size == 0), torch.nan))
    if not errors:
        return {"conservation": truth.new_full(truth.shape[:2], torch.nan)}
    return {"conservation": torch.stack(errors).nanmean(0).to(truth.dtype)}


def _product(values: Tensor) -> Tensor:
    """Of the channels, (B, T, C, *grid) -> (B, T, *grid)."""
    return prod(values.unbind(2), start=torch.ones((), dtype=values.dtype, device=values.device))
