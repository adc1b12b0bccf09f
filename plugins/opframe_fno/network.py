"""The FNO network that DPOT (Hao et al., 2024) and MoE-POT (Wang et al., 2025) compare with, on a grid of any axes.

Parameters have the names and shapes of the published network, which holds convolutions, but for the spectral ones,
whose modes come first. Here they act as matrix products on tokens (B, *grid, D), in one layout from the first to the
last.

Legend: B batch, T frames in, S frames out, C channels, N axes of space, D width, M = T·C + N inputs of a point.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from opframe.layers.dense import Pointwise, TokenNorm, full_precision, unit_interval
from opframe.layers.products import dense
from opframe.layers.scale import standardized
from opframe_fno import NORM_GROUPS
from opframe_fno.spectral import ModeTransform, SpectralConvolution
from opframe_registry import Conditions, Fields, Prediction

if TYPE_CHECKING:
    from opframe_fno import FNO


class FNONet(nn.Module):
    """(B, T, C, *grid) -> Prediction of (B, S, C, *grid)."""

    def __init__(self, settings: FNO, fields: Fields) -> None:
        super().__init__()
        channels, width, axes = len(fields.channels), settings.width, len(fields.grid)
        modes, blocks = settings.modes_along(fields.grid), range(settings.depth)
        self.channels, self.check_grid = channels, settings.modes_along
        self.transform = ModeTransform(fields.grid, modes)
        self.patch_embed = PointEmbedding(fields.history * channels, width, axes)
        self.spectral_convs = nn.ModuleList(SpectralConvolution(width, modes) for _ in blocks)
        self.convs = nn.ModuleList(Pointwise(width, width, axes) for _ in blocks)
        self.ln_layers = nn.ModuleList(
            TokenNorm(NORM_GROUPS, width) if settings.group_norm else nn.Identity() for _ in blocks
        )
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, fields.horizon * channels)
        self.scale_feats = nn.Linear(2 * channels, width) if settings.normalize else None
        self.cls_head = _classification_head(width, settings.classes) if settings.classes else None

    def forward(self, u: Tensor, conditions: Conditions | None = None) -> Prediction:
        """Predict the next S frames, in the precision of `u` under autocast too.

        Any grid with room for the modes may come. Raises ConfigError.
        """
        self.check_grid(u.shape[3:])
        if self.scale_feats is None:
            return self._predict(self.patch_embed(u), u.dtype)
        z, μ, σ = standardized(u)
        z = self.patch_embed(z)
        with full_precision(u):
            moments = torch.cat([μ, σ], dim=2).view(len(u), *[1] * (u.ndim - 3), -1)  # (B, 1, …, 2C)
            z = z + self.scale_feats(moments)
        prediction = self._predict(z, u.dtype)
        return dataclasses.replace(prediction, field=prediction.field * σ + μ)

    def _predict(self, z: Tensor, dtype: torch.dtype) -> Prediction:
        """Tokens of the embedding, (B, *grid, D) -> Prediction in the given precision."""
        transform = self.transform(z)
        for spectral, pointwise, norm in zip(self.spectral_convs, self.convs, self.ln_layers, strict=True):
            z = norm(functional.gelu(spectral(z, transform, pointwise)))
        points = self.fc2(functional.gelu(_at_points(z, self.fc1))).to(dtype)
        frames = rearrange(points, "b ... (s c) -> b s c ...", c=self.channels).contiguous()
        logits = None if self.cls_head is None else self.cls_head(z.flatten(1, -2).mean(1)).to(dtype)
        return Prediction(field=frames, class_logits=logits)


class PointEmbedding(nn.Module):
    """Two layers on the frames and the coordinates of every point, x, y, … from 0 to 1, both included.

    The coordinates enter linearly and apart from each other, so that they act as a bias in full precision.
    """

    def __init__(self, inputs: int, width: int, axes: int) -> None:
        super().__init__()
        inner = inputs + axes
        self.proj = nn.Sequential(Pointwise(inner, inner, axes), nn.GELU(), Pointwise(inner, width, axes))

    def forward(self, u: Tensor) -> Tensor:
        """(B, T, C, *grid) -> (B, *grid, D)."""
        first, second = cast(Pointwise, self.proj[0]), cast(Pointwise, self.proj[2])
        frames = u.flatten(1, 2).movedim(1, -1).contiguous()  # (B, *grid, T·C)
        weight, along = first.weight.flatten(1).tensor_split([frames.shape[-1]], dim=1)  # (M, T·C), (M, N)
        inner = self.proj[1](dense(frames, weight) + _coordinates(u, along, first.bias))
        return _at_points(inner, second)


def _coordinates(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What coordinates, weight (M, N), and bias (M,) add: (*grid, M)."""
    with full_precision(u):
        added = bias
        for points, along in zip(u.shape[:2:-1], weight.T.flip(0), strict=True):
            line = unit_interval(points, weight)[:, None] * along  # (X, M)
            added = line.view(points, *[1] * (added.ndim - 1), -1) + added
        return added


def _at_points(z: Tensor, layer: Pointwise | nn.Linear) -> Tensor:
    """(B, *grid, I) -> (B, *grid, O)."""
    return dense(z, layer.weight.flatten(1), layer.bias)


def _classification_head(width: int, classes: int) -> nn.Sequential:
    """The mean token (B, D) to logits (B, classes)."""
    return nn.Sequential(
        nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, classes)
    )
