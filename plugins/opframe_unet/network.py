"""The U-Net of PDEBench (Takamoto et al., NeurIPS 2022, arXiv 2210.07182).

Legend: B batch, T frames in, S frames out, C channels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn

from opframe.layers.scale import standardized
from opframe_registry import Conditions, Fields, Prediction
from opframe_unet.layers import doubling, halving, pointwise, two_convolutions

if TYPE_CHECKING:
    from opframe_unet import UNet

CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
"""The layout in which convolutions are fastest, by number of space axes; 15 % of a training step on a CPU."""


class UNetNet(nn.Module):
    """(B, T, C, *grid) -> Prediction of (B, S, C, *grid)."""

    def __init__(self, settings: UNet, fields: Fields) -> None:
        super().__init__()
        axes, channels = len(fields.grid), len(fields.channels)
        widths = [settings.width * 2**level for level in range(settings.levels + 1)]
        descent = list(pairwise(widths))
        self.normalize, self.channels = settings.normalize, channels
        self.layout = CHANNELS_LAST.get(axes, torch.contiguous_format)
        self.encoder = nn.ModuleList([two_convolutions(settings, axes, fields.history * channels, settings.width)])
        self.encoder += [halving(settings, axes, finer, coarser) for finer, coarser in descent]
        self.upsampling = nn.ModuleList(doubling(axes, coarser, finer) for finer, coarser in reversed(descent))
        self.decoder = nn.ModuleList(
            two_convolutions(settings, axes, 2 * finer, finer) for finer, _ in reversed(descent)
        )
        self.head = pointwise(axes, settings.width, fields.horizon * channels)

    def forward(self, u: Tensor, conditions: Conditions | None = None) -> Prediction:
        """Predict the next S frames, in the precision of `u` under autocast too."""
        if not self.normalize:
            return Prediction(field=self._frames(u))
        z, μ, σ = standardized(u)
        return Prediction(field=self._frames(z) * σ + μ)

    def _frames(self, u: Tensor) -> Tensor:
        """(B, T, C, *grid) -> (B, S, C, *grid)."""
        x = u.flatten(1, 2).contiguous(memory_format=self.layout)
        skips: list[Tensor] = []
        for encode in self.encoder:
            x = encode(x)
            skips.append(x)
        skips.pop()
        for upsample, decode in zip(self.upsampling, self.decoder, strict=True):
            skip = skips.pop()
            x = decode(torch.cat([_extended(upsample(x), skip), skip], dim=1))
        frames: Tensor = self.head(x).to(u.dtype)
        return rearrange(frames, "b (s c) ... -> b s c ...", c=self.channels).contiguous()


def _extended(x: Tensor, skip: Tensor) -> Tensor:
    """Repeat the last point of each axis whose number of points was odd before it was halved."""
    for axis in range(2, x.ndim):
        if x.shape[axis] < skip.shape[axis]:
            x = torch.cat([x, x.narrow(axis, -1, 1)], dim=axis)
    return x
