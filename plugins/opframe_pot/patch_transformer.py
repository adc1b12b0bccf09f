"""The network that DPOT (arXiv 2403.03542, section 3) and MoE-POT (arXiv 2510.25803) share, computed channels-last.

Parameters have the names and shapes of the published checkpoints, which hold convolutions. Here they act as
matrix products on tokens (B, X', Y', D), in one layout from patches to pixels; a third axis of space changes nothing.

Legend: B batch, T frames in, S frames out, C channels, X Y grid, P side of a patch, X' = X/P and Y' = Y/P, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from opframe.layers.dense import Pointwise, full_precision
from opframe.layers.scale import standardized
from opframe_pot.embedding import PatchEmbedding, TemporalAggregation, embed
from opframe_pot.patch_keys import PatchBackbone, check_patch
from opframe_pot.patches import PatchExpansion, scatter_patches
from opframe_registry import Conditions, Fields, Prediction


@dataclass(frozen=True, kw_only=True, eq=False)  # torch.compile traces a dataclass
class Mixed:
    """What a block makes of tokens (B, X', Y', D): the same shape, and scalar penalties by name."""

    tokens: Tensor
    penalties: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)


class PatchTransformer(nn.Module):
    """(B, T, C, X, Y) -> Prediction of (B, S, C, X, Y). A block maps tokens (B, X', Y', D) to Mixed."""

    def __init__(self, settings: PatchBackbone, fields: Fields, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        channels, width, axes = len(fields.channels), settings.width, len(fields.grid)
        self.patch, self.horizon = settings.patch, fields.horizon
        self.patch_embed = PatchEmbedding(channels, width, settings.patch, axes)
        position = torch.empty(1, width, *patch_grid(settings, fields))
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(position, std=0.02))
        self.time_agg_layer = TemporalAggregation(fields.history, width, settings.time_aggregation == "exp_mlp")
        self.blocks = nn.ModuleList(blocks)
        self.out_layer = _output_layers(settings, channels * fields.horizon, axes)
        self.scale_feats_mu = nn.Linear(2 * channels, width) if settings.normalize else None
        self.scale_feats_sigma = nn.Linear(2 * channels, width) if settings.normalize else None
        self.cls_head = _classification_head(width, settings.classes) if settings.classes else None

    def forward(self, u: Tensor, conditions: Conditions | None = None) -> Prediction:
        """Predict the next S frames, in the precision of `u` under autocast too.

        Any grid of whole patches may come, with the axes of the one that the network was made for. Raises ConfigError.
        """
        check_patch(self.patch, u.shape[3:])
        if self.scale_feats_mu is None or self.scale_feats_sigma is None:
            return self._predict(self._tokens(u), u.dtype)
        z, μ, σ = standardized(u)
        z = self._tokens(z)
        with full_precision(u):
            moments = torch.cat([μ, σ], dim=2).view(len(u), *[1] * (u.ndim - 3), -1)  # (B, 1, 1, 2C)
            z = z * self.scale_feats_sigma(moments) + self.scale_feats_mu(moments)
        prediction = self._predict(z, u.dtype)
        return dataclasses.replace(prediction, field=prediction.field * σ + μ)

    def _tokens(self, u: Tensor) -> Tensor:
        """(B, T, C, X, Y) -> (B, X', Y', D)."""
        return embed(u, self.patch_embed, self.pos_embed, self.time_agg_layer)

    def _predict(self, z: Tensor, dtype: torch.dtype) -> Prediction:
        """Tokens of the embedding, (B, X', Y', D) -> Prediction, its field in the given precision."""
        penalties: dict[str, Tensor] = {}
        for block in self.blocks:
            mixed = cast(Mixed, block(z))
            z = mixed.tokens
            for name, value in mixed.penalties.items():
                penalties[name] = penalties[name] + value if name in penalties else value
        field = scatter_patches(self.out_layer(z), self.patch, self.horizon).to(dtype)
        logits = None if self.cls_head is None else self.cls_head(z.flatten(1, -2).mean(1)).to(dtype)
        return Prediction(field=field, penalties=penalties, class_logits=logits)


def patch_grid(settings: PatchBackbone, fields: Fields) -> tuple[int, ...]:
    """Number of patches along every axis, X', Y'."""
    return tuple(points // settings.patch for points in fields.grid)


def _output_layers(settings: PatchBackbone, outputs: int, axes: int) -> nn.Sequential:
    """Tokens (B, X', Y', D) to the points of every patch (B, X', Y', P·P, S·C)."""
    inner = settings.output_width
    return nn.Sequential(
        PatchExpansion(settings.width, inner, settings.patch, axes),
        nn.GELU(),
        Pointwise(inner, inner, axes),
        nn.GELU(),
        Pointwise(inner, outputs, axes),
    )


def _classification_head(width: int, classes: int) -> nn.Sequential:
    """The mean token (B, D) to logits (B, classes)."""
    return nn.Sequential(
        nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, classes)
    )
