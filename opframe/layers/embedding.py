"""How a patch transformer turns frames into tokens (DPOT, arXiv 2403.03542, section 3.2), channels-last.

Legend: B batch, T frames, C channels, X Y grid of N axes, P side of a patch, X' = X/P, Y' = Y/P, D width,
M = C·P + N + 1 channels inside the patch embedding, γ frequencies of the temporal aggregation.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from opframe.layers.dense import Pointwise, dense, full_precision, unit_interval
from opframe.layers.patches import PatchConvolution


class PatchEmbedding(nn.Module):
    """Convolution of each patch and frame, and activation. `second`, which follows, is applied by `embed`."""

    def __init__(self, channels: int, width: int, patch: int, axes: int) -> None:
        super().__init__()
        inner = channels * patch + axes + 1
        self.proj = nn.Sequential(
            PatchConvolution(channels, inner, patch, axes), nn.GELU(), Pointwise(inner, width, axes)
        )

    @property
    def second(self) -> Pointwise:
        """The convolution M -> D."""
        return cast(Pointwise, self.proj[2])

    def forward(self, u: Tensor) -> Tensor:
        """(B, T, C, X, Y) -> (B, X', Y', T, M)."""
        first, activation, _ = self.proj
        return cast(Tensor, activation(first(u)))


class TemporalAggregation(nn.Module):
    """The matrices A_t = diag(cos(t·γ)) W_t, t from 0 to 1, that sum the frames up; without γ, A_t = W_t."""

    def __init__(self, frames: int, width: int, with_frequencies: bool) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(frames, width, width) / (frames * math.sqrt(width)))
        self.gamma = nn.Parameter(2 ** torch.linspace(-10, 10, width)[None]) if with_frequencies else None

    def forward(self) -> Tensor:
        """(T, D, D), which multiply from the right."""
        if self.gamma is None:
            return self.w
        t = unit_interval(len(self.w), self.w)[:, None]
        return torch.cos(t * self.gamma)[..., None] * self.w


def embed(u: Tensor, patches: PatchEmbedding, position: Tensor, aggregation: TemporalAggregation) -> Tensor:
    """Embed and aggregate the frames: (B, T, C, X, Y), position (1, D, X', Y') -> tokens (B, X', Y', D).

    From the activation inside the embedding on everything is linear: the second convolution (W₂, b₂), the
    position embedding p and the aggregation Σ_t (·) A_t. Hence z = Σ_t a_t (W₂ᵀ A_t) + (p + b₂) Σ_t A_t: one
    product with T·M inputs, whose weight is folded from the parameters every time.
    """
    activated, second = patches(u), patches.second
    with full_precision(u):
        matrices: Tensor = aggregation()  # (T, D, D)
        folded = (second.weight.flatten(1).T @ matrices).flatten(0, 1)  # (T·M, D)
        offset = (position[0].movedim(0, -1) + second.bias) @ matrices.sum(0)  # (X', Y', D)
    return dense(activated.flatten(-2), folded.T) + offset
