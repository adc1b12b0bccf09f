"""What the straightforward networks share.

Legend: B batch, T frames, C channels, X Y grid, P side of a patch, X' = X/P, Y' = Y/P, D width.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class Embedding(nn.Module):
    """A convolution of every patch, GELU, and a 1×1 convolution: (N, C, X, Y) -> (N, D, X', Y')."""

    def __init__(self, inputs: int, inner: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(inputs, inner, patch, stride=patch), nn.GELU(), nn.Conv2d(inner, width, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Every image on its own."""
        return cast(Tensor, self.proj(images))


def coordinates(u: Tensor, *axes: int) -> list[Tensor]:
    """For each axis of (B, T, C, X, Y) a channel from 0 to 1 along it, (B, T, 1, X, Y)."""
    shape = (*u.shape[:2], 1, *u.shape[3:])
    lines = [torch.linspace(0, 1, u.shape[axis], dtype=u.dtype, device=u.device) for axis in axes]
    return [
        line.view(*[-1 if axis == other else 1 for other in range(u.ndim)]).expand(shape)
        for axis, line in zip(axes, lines, strict=True)
    ]


def classification_head(width: int, classes: int) -> nn.Sequential | None:
    """From the mean over the grid to logits; None without classes."""
    if not classes:
        return None
    return nn.Sequential(
        nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, classes)
    )
