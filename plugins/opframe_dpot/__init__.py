"""DPOT, the denoising pre-trained operator transformer (Hao et al., ICML 2024, arXiv 2403.03542)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from attrs import field, frozen
from attrs.validators import gt, in_

from opframe_registry import Backbone, Component, ConfigError, Fields, hookimpl

if TYPE_CHECKING:
    from torch import nn

NORM_GROUPS = 8
"""Channel groups of every GroupNorm."""


@final
@frozen(kw_only=True)
class DPOT(Backbone):
    """Fourier-attention transformer over patches (Hao et al., 2024)."""

    name: ClassVar[str] = "dpot"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mini": {"width": 128, "depth": 4, "heads": 4, "patch": 8, "mlp_ratio": 1.0, "output_width": 32},
        "tiny": {"width": 512, "depth": 4, "heads": 4, "patch": 8, "mlp_ratio": 1.0, "output_width": 32},
        "small": {"width": 1024, "depth": 6, "heads": 8, "patch": 8, "mlp_ratio": 1.0, "output_width": 32},
        "medium": {"width": 1024, "depth": 12, "heads": 8, "patch": 8, "mlp_ratio": 4.0, "output_width": 32},
        # Of the two published numbers of heads (16 and 8), 16 gives the published 509 million weights.
        "large": {"width": 1536, "depth": 24, "heads": 16, "patch": 8, "mlp_ratio": 4.0, "output_width": 128},
        "huge": {"width": 2048, "depth": 27, "heads": 8, "patch": 8, "mlp_ratio": 4.0, "output_width": 128},
    }

    size: str | None = field(default=None, metadata={"help": "preset that fills the other keys; all of them override"})
    width: int = field(default=512, validator=gt(0), metadata={"help": "channels of a token; a multiple of 8"})
    depth: int = field(default=4, validator=gt(0), metadata={"help": "number of blocks"})
    heads: int = field(default=4, validator=gt(0), metadata={"help": "channel groups of the Fourier attention"})
    patch: int = field(default=8, validator=gt(0), metadata={"help": "side of a patch in grid points"})
    modes: int = field(default=32, validator=gt(0), metadata={"help": "Fourier modes kept along each axis of patches"})
    mlp_ratio: float = field(default=1.0, validator=gt(0.0), metadata={"help": "hidden width of a block's MLP / width"})
    output_width: int = field(default=32, validator=gt(0), metadata={"help": "channels of the output layers"})
    normalize: bool = field(default=False, metadata={"help": "normalise every sample and restore its scale at the end"})
    time_aggregation: Literal["exp_mlp", "mlp"] = field(
        default="exp_mlp",
        validator=in_(("exp_mlp", "mlp")),
        metadata={"help": "sum over frames of a linear map, with (exp_mlp) or without (mlp) learned frequencies"},
    )

    def __attrs_post_init__(self) -> None:
        if self.size is not None and self.size not in self.presets:
            raise ValueError(f"size = {self.size!r} is not a preset; presets: {', '.join(self.presets)}")
        if self.width % NORM_GROUPS:
            nearest = NORM_GROUPS * max(1, round(self.width / NORM_GROUPS))
            raise ValueError(f"width = {self.width} must be a multiple of {NORM_GROUPS} (GroupNorm), such as {nearest}")
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} must divide width = {self.width}; {_divisors(self.width)} do")
        if self.hidden < 1:
            raise ValueError(f"mlp_ratio = {self.mlp_ratio} leaves no hidden channel at width = {self.width}")

    @property
    def hidden(self) -> int:
        """Hidden width of a block's MLP, ⌊width · mlp_ratio⌋."""
        return math.floor(self.width * self.mlp_ratio)

    def build(self, fields: Fields) -> nn.Module:
        """Make a `DPOTNet`. Raises ConfigError unless the grid is 2-D and made of whole patches."""
        if len(fields.grid) != 2:
            raise ConfigError(f"[backbone] dpot works on 2-D grids, but the data's grid is {_shape(fields.grid)}")
        if any(points % self.patch for points in fields.grid):
            raise ConfigError(
                f"[backbone] patch = {self.patch} does not divide the grid {_shape(fields.grid)}; "
                f"set patch to one of {_divisors(*fields.grid)}, or change data.grid"
            )
        from opframe_dpot.network import DPOTNet

        return DPOTNet(self, fields)


def _shape(grid: Sequence[int]) -> str:
    return "×".join(map(str, grid))


def _divisors(*numbers: int) -> str:
    common = math.gcd(*numbers)
    return ", ".join(str(number) for number in range(1, common + 1) if common % number == 0)


@hookimpl
def opframe_components() -> list[type[Component]]:
    """The components of this plugin."""
    return [DPOT]
