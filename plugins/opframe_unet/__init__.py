"""The U-Net that PDEBench (NeurIPS 2022, arXiv 2210.07182) and PDEArena (arXiv 2209.15616) compare with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from attrs import field, frozen
from attrs.validators import gt, in_

from opframe.layers.checks import check_groups, in_words
from opframe_registry import Adapted, Backbone, Change, Component, ConfigError, Fields, hookimpl

if TYPE_CHECKING:
    from torch import nn

NORM_GROUPS = 4
"""Channel groups of every GroupNorm."""

Norm = Literal["group", "batch"]
Activation = Literal["gelu", "relu", "tanh"]


@final
@frozen(kw_only=True)
class UNet(Backbone):
    """Convolutional encoder and decoder with skip connections (Ronneberger et al., 2015).

    Frames and channels are stacked. Two convolutions a level, halving by max-pooling, doubling by transposed
    convolution, in 1-D, 2-D or 3-D, on grids of any number of points. The presets `pdebench` and `pdearena` are the
    networks of these benchmarks (PDEArena's UNet2015). With `norm = "batch"` the samples of a training batch
    influence each other, which is why it is not the default here, where a batch mixes equations.
    """

    name: ClassVar[str] = "unet"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mini": {"width": 12, "levels": 4, "norm": "group", "activation": "gelu"},
        "pdebench": {"width": 32, "levels": 4, "norm": "batch", "activation": "tanh"},
        "pdearena": {"width": 64, "levels": 4, "norm": "batch", "activation": "gelu"},
    }
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "embedding": ("encoder.0.conv_0.conv.*",),
        "blocks": (
            "encoder.0.conv_0.adn.*",
            "encoder.0.conv_1.*",
            "encoder.[1-9]*",
            "upsampling.*",
            "decoder.*",
        ),
        "head": ("head.*",),
    }

    width: int = field(
        default=32, validator=gt(0), metadata={"help": "channels on the finest level; they double below"}
    )
    levels: int = field(default=4, validator=gt(0), metadata={"help": "how many times the grid is halved"})
    norm: Norm = field(
        default="group",
        validator=in_(("group", "batch")),
        metadata={"help": "after each convolution: group treats each sample alone, batch mixes those of a batch"},
    )
    activation: Activation = field(
        default="gelu", validator=in_(("gelu", "relu", "tanh")), metadata={"help": "after each convolution and norm"}
    )

    def __attrs_post_init__(self) -> None:
        if self.norm == "group":
            check_groups(self.width, NORM_GROUPS)

    def build(self, fields: Fields) -> nn.Module:
        """Make a `UNetNet`. Raises ConfigError unless the grid has 1 to 3 axes that can be halved so many times."""
        shape = in_words(fields.grid)
        if not 1 <= len(fields.grid) <= 3:
            raise ConfigError(f"[backbone] unet works on 1-D, 2-D and 3-D grids, but the data's grid is {shape}")
        most = min(fields.grid).bit_length() - 1
        if self.levels > most:
            advice = f"set levels to at most {most}" if most else "give every axis of data.grid more points"
            raise ConfigError(f"[backbone] the grid {shape} cannot be halved levels = {self.levels} times; {advice}")
        from opframe_unet.network import UNetNet

        return UNetNet(self, fields)

    def adapt(self, change: Change) -> Adapted | None:
        """Fit the first and the last convolution to other channels, history and horizon.

        Channels are kept by position, frames of the input from the latest back, frames of the output from the first
        on.
        """
        from opframe.layers.changes import last_layer
        from opframe_unet.adaptation import FIRST, LAST, adapt_first

        if change.name == FIRST:
            return adapt_first(change)
        if change.name in LAST:
            return last_layer(change)
        return super().adapt(change)


@hookimpl
def opframe_components() -> list[type[Component]]:
    """The components of this plugin."""
    return [UNet]
