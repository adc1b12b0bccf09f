"""The network of DPOT (Hao et al., ICML 2024, arXiv 2403.03542, section 3), computed channels-last.

Parameters have the names and shapes of the published checkpoints, which hold convolutions. Here they act as
matrix products on tokens (B, X', Y', D), in one layout from patches to pixels.

Legend: B batch, T frames in, S frames out, C channels, X Y grid, P side of a patch, X' = X/P and Y' = Y/P,
D width, M = C·P + 3 channels inside the patch embedding, γ frequencies of the temporal aggregation.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from opframe_dpot import NORM_GROUPS
from opframe_dpot.fourier import FourierAttention
from opframe_dpot.layers import PatchConvolution, PatchExpansion, Pointwise, dense, full_precision, unit_interval
from opframe_registry import Fields, Prediction

if TYPE_CHECKING:
    from opframe_dpot import DPOT


class DPOTNet(nn.Module):
    """(B, T, C, X, Y) -> Prediction of (B, S, C, X, Y)."""

    def __init__(self, settings: DPOT, fields: Fields) -> None:
        super().__init__()
        channels, width, patch, inner = len(fields.channels), settings.width, settings.patch, settings.output_width
        patches = (fields.grid[0] // patch, fields.grid[1] // patch)
        self.patch, self.horizon = patch, fields.horizon
        self.patch_embed = PatchEmbedding(channels, width, patch)
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, width, *patches), std=0.02))
        self.time_agg_layer = TemporalAggregation(fields.history, width, settings.time_aggregation == "exp_mlp")
        self.blocks = nn.Sequential(
            *(Block(width, settings.hidden, settings.heads, patches, settings.modes) for _ in range(settings.depth))
        )
        self.out_layer = nn.Sequential(
            PatchExpansion(width, inner, patch),
            nn.GELU(),
            Pointwise(inner, inner),
            nn.GELU(),
            Pointwise(inner, channels * fields.horizon),
        )
        self.scale_feats_mu = nn.Linear(2 * channels, width) if settings.normalize else None
        self.scale_feats_sigma = nn.Linear(2 * channels, width) if settings.normalize else None

    def forward(self, u: Tensor) -> Prediction:
        """Predict the next S frames, in the precision of `u` under autocast too."""
        return Prediction(field=self._frames(u))

    def _frames(self, u: Tensor) -> Tensor:
        """(B, T, C, X, Y) -> (B, S, C, X, Y)."""
        if self.scale_feats_mu is None or self.scale_feats_sigma is None:
            return self._pixels(self.blocks(self._tokens(u))).to(u.dtype)
        σ, μ = torch.std_mean(u, dim=(1, 3, 4), keepdim=True)  # (B, 1, C, 1, 1)
        σ = σ + 1e-6
        z = self._tokens((u - μ) / σ)
        with full_precision(u):
            moments = torch.cat([μ, σ], dim=2).flatten(1)[:, None, None]  # (B, 1, 1, 2C)
            z = z * self.scale_feats_sigma(moments) + self.scale_feats_mu(moments)
        return self._pixels(self.blocks(z)).to(u.dtype) * σ + μ

    def _tokens(self, u: Tensor) -> Tensor:
        """Embed and aggregate the frames: (B, T, C, X, Y) -> (B, X', Y', D).

        From the activation inside the embedding to the blocks everything is linear: the second convolution
        (W₂, b₂), the position embedding p and the aggregation Σ_t (·) A_t. Hence z = Σ_t a_t (W₂ᵀ A_t)
        + (p + b₂) Σ_t A_t: one product with T·M inputs, whose weight is folded from the parameters every time.
        """
        activated, second = self.patch_embed(u), self.patch_embed.second
        with full_precision(u):
            aggregation: Tensor = self.time_agg_layer()  # (T, D, D)
            folded = (second.weight.flatten(1).T @ aggregation).flatten(0, 1)  # (T·M, D)
            position = (self.pos_embed[0].movedim(0, -1) + second.bias) @ aggregation.sum(0)  # (X', Y', D)
        return dense(activated.flatten(-2), folded.T) + position

    def _pixels(self, z: Tensor) -> Tensor:
        """(B, X', Y', D) -> (B, S, C, X, Y)."""
        points: Tensor = self.out_layer(z)
        return rearrange(points, "b x y (p q) (s c) -> b s c (x p) (y q)", p=self.patch, s=self.horizon)


class PatchEmbedding(nn.Module):
    """Convolution of each patch and frame, and activation. `second`, which follows, is applied by DPOTNet."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        inner = channels * patch + 3
        self.proj = nn.Sequential(PatchConvolution(channels, inner, patch), nn.GELU(), Pointwise(inner, width))

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


class Block(nn.Module):
    """Fourier attention, then a perceptron on each token. The inner skip carries the normalised tokens."""

    def __init__(self, width: int, hidden: int, heads: int, patches: tuple[int, int], modes: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(NORM_GROUPS, width)
        self.filter = FourierAttention(width, heads, patches, modes)
        self.norm2 = nn.GroupNorm(NORM_GROUPS, width)
        self.mlp = nn.Sequential(Pointwise(width, hidden), nn.GELU(), Pointwise(hidden, width))

    def forward(self, z: Tensor) -> Tensor:
        """(B, X', Y', D) -> the same."""
        normal = _channels_last(self.norm1, z)
        mixed = _channels_last(self.norm2, normal + self.filter(normal))
        return cast(Tensor, self.mlp(mixed) + z)


def _channels_last(norm: nn.GroupNorm, z: Tensor) -> Tensor:
    """Apply a norm that wants the channels second, on a view."""
    normal: Tensor = norm(z.movedim(-1, 1))
    return normal.movedim(1, -1)
