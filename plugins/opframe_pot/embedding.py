"""How a patch transformer turns frames into tokens (DPOT, arXiv 2403.03542, section 3.2), channels-last.

Legend: B batch, T frames, C channels, X Y grid of N axes, P side of a patch, X' = X/P, Y' = Y/P, D width,
M = C·P + N + 1 channels inside the patch embedding, γ frequencies of the temporal aggregation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from opframe.layers.dense import Pointwise, full_precision, unit_interval
from opframe.layers.derived import derived
from opframe.layers.products import dense
from opframe_pot.folding import aggregated
from opframe_pot.patches import PatchConvolution


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
    """W and γ of the matrices that sum the frames up, which `embed` applies."""

    def __init__(self, frames: int, width: int, with_frequencies: bool) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(frames, width, width) / (frames * math.sqrt(width)))
        self.gamma = nn.Parameter(2 ** torch.linspace(-10, 10, width)[None]) if with_frequencies else None


def embed(u: Tensor, patches: PatchEmbedding, position: Tensor, aggregation: TemporalAggregation) -> Tensor:
    """Embed and aggregate the frames: (B, T, C, X, Y), position (1, D, X', Y') -> tokens (B, X', Y', D).

    From the activation inside the embedding on everything is linear: the second convolution (W₂, b₂), the
    position embedding p and the aggregation Σ_t (·) A_t. Hence z = Σ_t a_t (W₂ᵀ A_t) + (p + b₂) Σ_t A_t: one
    product with T·M inputs. On another grid than the position embedding's, that one is resized.
    """
    activated, second = patches(u), patches.second
    with full_precision(u):
        weights = (second.weight, second.bias, position, aggregation.w, aggregation.gamma)
        folded, offset = derived(_fold, *weights, tuple(activated.shape[1:-2]))
    return dense(activated.flatten(-2), folded) + offset


def _fold(
    weight: Tensor, bias: Tensor, position: Tensor, w: Tensor, gamma: Tensor | None, patches: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The A_tᵀ W₂ side by side, (D, T·M), and (p + b₂) Σ_t A_t, (X', Y', D); A_t = diag(cos(t·γ)) W_t, or W_t."""
    folded, summed = aggregated(weight.flatten(1).T, _cosines(w, gamma), w)  # (T, M, D), (D, D)
    offset = dense(resize_position(position, patches)[0].movedim(0, -1) + bias, summed.T)
    return folded.flatten(0, 1).T, offset


def _cosines(w: Tensor, gamma: Tensor | None) -> Tensor:
    """cos(t·γ), t from 0 to 1, of T frames: (T, D); without γ, ones."""
    if gamma is None:
        return w.new_ones(w.shape[:2])
    return torch.cos(unit_interval(len(w), w)[:, None] * gamma)


def resize_position(position: Tensor, patches: Sequence[int]) -> Tensor:
    """(1, D, X', Y') on another grid of patches, as data are resized: linearly, with half-pixel centres.

    A product with a small matrix along each axis: unlike torch's interpolation, its gradient is deterministic on a GPU.
    """
    for axis, points in enumerate(patches, start=2):
        old = position.shape[axis]
        if old != points:
            unit = torch.eye(old, dtype=position.dtype, device=position.device)[None]
            weights = functional.interpolate(unit, size=points, mode="linear", align_corners=False)[0]  # (old, new)
            position = (position.movedim(axis, -1) @ weights).movedim(-1, axis)
    return position
