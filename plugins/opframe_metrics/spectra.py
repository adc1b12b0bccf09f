"""Which scales of a field an error is of."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from attrs import frozen
from torch import Tensor

from opframe_metrics.errors import Points, over_channels
from opframe_registry import Metadata


@frozen
class Bands:
    """The error in bands of the wavenumber, counted in waves over the whole domain."""

    low: int
    high: int

    def __call__(self, prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> Mapping[str, Tensor]:
        """Root mean squares (B, T) of the error in each band: their squares add up to that of the whole error."""
        of = Points(prediction, truth, mask)
        axes, grid = of.space, truth.shape[3:]
        power = torch.fft.fftn(of.error.float(), dim=axes).abs().square() / prod(grid)
        wave = _wavenumbers(grid, truth.device)
        bands = {
            "low": wave < self.low,
            "mid": (wave >= self.low) & (wave < self.high),
            "high": wave >= self.high,
        }
        points = of.points.clamp(min=1)
        return {
            f"fourier_{name}": over_channels(((power * band).sum(axes) / points).sqrt(), of.there)
            for name, band in bands.items()
        }


def _wavenumbers(grid: torch.Size, device: torch.device) -> Tensor:
    """The length of the wave vector of each coefficient, rounded down."""
    square = torch.zeros(grid, device=device)
    for axis, points in enumerate(grid):
        waves = torch.fft.fftfreq(points, 1 / points, device=device).square()
        square = square + waves.view([points if other == axis else 1 for other in range(len(grid))])
    return square.sqrt().floor()
