"""What the components of patch transformers share: limits of their keys and the parts of their networks. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from opframe_registry import ConfigError, Fields

NORM_GROUPS = 8
"""Channel groups of every GroupNorm."""

PARTS: Mapping[str, tuple[str, ...]] = {
    "embedding": ("patch_embed.*", "pos_embed"),
    "time_aggregation": ("time_agg_layer.*",),
    "blocks": ("blocks.*",),
    "head": ("out_layer.*",),
    "normalization": ("scale_feats_*",),
    "classification": ("cls_head.*",),
}
"""Parts of a patch transformer, by the names in its state dict."""


class PatchKeys(Protocol):
    """The keys that every patch transformer has."""

    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def patch(self) -> int: ...
    @property
    def mlp_ratio(self) -> float: ...
    @property
    def classes(self) -> int: ...


def hidden_width(keys: PatchKeys) -> int:
    """Hidden width of a block's perceptron, ⌊width · mlp_ratio⌋."""
    return math.floor(keys.width * keys.mlp_ratio)


def check_widths(keys: PatchKeys) -> None:
    """Raise ValueError where width, heads and mlp_ratio do not fit each other."""
    if keys.width % NORM_GROUPS:
        nearest = NORM_GROUPS * max(1, round(keys.width / NORM_GROUPS))
        raise ValueError(f"width = {keys.width} must be a multiple of {NORM_GROUPS} (GroupNorm), such as {nearest}")
    if keys.width % keys.heads:
        raise ValueError(f"heads = {keys.heads} must divide width = {keys.width}; {_divisors(keys.width)} do")
    if hidden_width(keys) < 1:
        raise ValueError(f"mlp_ratio = {keys.mlp_ratio} leaves no hidden channel at width = {keys.width}")


def check_fields(name: str, keys: PatchKeys, fields: Fields) -> None:
    """Raise ConfigError where the backbone of that name cannot work on the fields."""
    if len(fields.grid) not in (2, 3):
        raise ConfigError(f"[backbone] {name} works on 2-D and 3-D grids, but the data's is {_shape(fields.grid)}")
    check_patch(keys.patch, fields.grid)
    if 0 < keys.classes < len(fields.datasets):
        raise ConfigError(
            f"[backbone] classes = {keys.classes}, but the mixture has {len(fields.datasets)} datasets; "
            f"set classes to {len(fields.datasets)} or more, or to 0 for a network that does not classify"
        )


def check_patch(patch: int, grid: Sequence[int]) -> None:
    """Raise ConfigError where a grid is not made of whole patches."""
    if any(points % patch for points in grid):
        raise ConfigError(
            f"[backbone] patch = {patch} does not divide the grid {_shape(grid)}; "
            f"set patch to one of {_divisors(*grid)}, or change data.grid"
        )


def _shape(grid: Sequence[int]) -> str:
    return "×".join(map(str, grid))


def _divisors(*numbers: int) -> str:
    common = math.gcd(*numbers)
    return ", ".join(str(number) for number in range(1, common + 1) if common % number == 0)
