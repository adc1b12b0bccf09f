"""What the components of patch transformers share: their keys and the parts of their networks. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from attrs import field, frozen
from attrs.validators import ge, gt, in_

from opframe.layers.checks import check_classes, check_groups, in_words
from opframe_registry import Adapted, Backbone, Change, ConfigError, Fields

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


@frozen(kw_only=True)
class PatchBackbone(Backbone):
    """The keys of DPOT and MoE-POT, and what they ask of each other and of the data."""

    parts: ClassVar[Mapping[str, tuple[str, ...]]] = PARTS

    width: int = field(default=512, validator=gt(0), metadata={"help": "channels of a token; a multiple of 8"})
    depth: int = field(default=4, validator=gt(0), metadata={"help": "number of blocks"})
    heads: int = field(default=4, validator=gt(0), metadata={"help": "channel groups of the Fourier attention"})
    patch: int = field(default=8, validator=gt(0), metadata={"help": "side of a patch in grid points"})
    modes: int = field(default=32, validator=gt(0), metadata={"help": "Fourier modes kept along each axis of patches"})
    mlp_ratio: float = field(
        default=1.0,
        validator=gt(0.0),
        metadata={"help": "channels inside a block (of its MLP, or those that its experts see) / width"},
    )
    output_width: int = field(default=32, validator=gt(0), metadata={"help": "channels of the output layers"})
    time_aggregation: Literal["exp_mlp", "mlp"] = field(
        default="exp_mlp",
        validator=in_(("exp_mlp", "mlp")),
        metadata={"help": "sum over frames of a linear map, with (exp_mlp) or without (mlp) learned frequencies"},
    )
    classes: int = field(
        default=0, validator=ge(0), metadata={"help": "datasets told apart by a classification head; 0: no head"}
    )

    def __attrs_post_init__(self) -> None:
        check_groups(self.width, NORM_GROUPS)
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} must divide width = {self.width}; {_divisors(self.width)} do")
        if self.hidden < 1:
            raise ValueError(f"mlp_ratio = {self.mlp_ratio} leaves no hidden channel at width = {self.width}")

    @property
    def hidden(self) -> int:
        """Channels inside a block, ⌊width · mlp_ratio⌋."""
        return math.floor(self.width * self.mlp_ratio)

    def check(self, fields: Fields) -> None:
        """Raise ConfigError unless the grid is 2-D or 3-D and made of whole patches, and the classes suffice."""
        if len(fields.grid) not in (2, 3):
            raise ConfigError(
                f"[backbone] {self.name} works on 2-D and 3-D grids, but the data's is {in_words(fields.grid)}"
            )
        check_patch(self.patch, fields.grid)
        check_classes(self.classes, fields)

    def adapt(self, change: Change) -> Adapted | None:
        """Fit a weight to another grid, other channels, another history or horizon; 2-D blocks to 3-D.

        With another number of experts those that both have are taken, and the gate's last layer begins fresh.
        """
        from opframe_pot.adaptation import adapt_patch_transformer

        return adapt_patch_transformer(self, change)


def check_patch(patch: int, grid: Sequence[int]) -> None:
    """Raise ConfigError where a grid is not made of whole patches."""
    if any(points % patch for points in grid):
        raise ConfigError(
            f"[backbone] patch = {patch} does not divide the grid {in_words(grid)}; "
            f"set patch to one of {_divisors(*grid)}, or change data.grid"
        )


def _divisors(*numbers: int) -> str:
    common = math.gcd(*numbers)
    return ", ".join(str(number) for number in range(1, common + 1) if common % number == 0)
