"""DPOT, the denoising pre-trained operator transformer (Hao et al., ICML 2024, arXiv 2403.03542)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from attrs import field, frozen
from attrs.validators import ge, gt, in_

from opframe.layers.patch_keys import PARTS, check_fields, check_widths, hidden_width
from opframe_registry import Adapted, Backbone, Change, Component, Fields, Published, hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn


@final
@frozen(kw_only=True)
class DPOT(Backbone):
    """Fourier-attention transformer over patches (Hao et al., 2024)."""

    name: ClassVar[str] = "dpot"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = PARTS
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mini": {"width": 128, "depth": 4, "heads": 4, "patch": 8, "mlp_ratio": 1.0, "output_width": 32},
        "tiny": {"width": 512, "depth": 4, "heads": 4, "patch": 8, "mlp_ratio": 1.0, "output_width": 32},
        "small": {"width": 1024, "depth": 6, "heads": 8, "patch": 8, "mlp_ratio": 1.0, "output_width": 32},
        "medium": {"width": 1024, "depth": 12, "heads": 8, "patch": 8, "mlp_ratio": 4.0, "output_width": 32},
        # Of the two published numbers of heads (16 and 8), 16 gives the published 509 million weights.
        "large": {"width": 1536, "depth": 24, "heads": 16, "patch": 8, "mlp_ratio": 4.0, "output_width": 128},
        "huge": {"width": 2048, "depth": 27, "heads": 8, "patch": 8, "mlp_ratio": 4.0, "output_width": 128},
    }

    width: int = field(default=512, validator=gt(0), metadata={"help": "channels of a token; a multiple of 8"})
    depth: int = field(default=4, validator=gt(0), metadata={"help": "number of blocks"})
    heads: int = field(default=4, validator=gt(0), metadata={"help": "channel groups of the Fourier attention"})
    patch: int = field(default=8, validator=gt(0), metadata={"help": "side of a patch in grid points"})
    modes: int = field(default=32, validator=gt(0), metadata={"help": "Fourier modes kept along each axis of patches"})
    mlp_ratio: float = field(default=1.0, validator=gt(0.0), metadata={"help": "hidden width of a block's MLP / width"})
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
        check_widths(self)

    @property
    def hidden(self) -> int:
        """Hidden width of a block's MLP, ⌊width · mlp_ratio⌋."""
        return hidden_width(self)

    def build(self, fields: Fields) -> nn.Module:
        """Make the network. Raises ConfigError unless the grid is 2-D or 3-D and made of whole patches."""
        check_fields(self.name, self, fields)
        from opframe_dpot.network import dpot

        return dpot(self, fields)

    def adapt(self, change: Change) -> Adapted | None:
        """Fit a weight to another grid, other channels, another history or horizon; 2-D blocks to 3-D."""
        from opframe.layers.adaptation import adapt_patch_transformer

        return adapt_patch_transformer(self, change)

    @classmethod
    def from_published(cls, arguments: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Published | None:
        """Read a checkpoint of DPOT's authors. Raises ConfigError where it is one that cannot be used here."""
        if not {"patch_embed.proj.0.weight", "blocks.0.filter.w1", "blocks.0.mlp.0.weight"} <= weights.keys():
            return None
        from opframe.layers.published import as_published, read

        reading = read(arguments, weights, hidden=len(weights["blocks.0.mlp.0.weight"]))
        return as_published(reading, cls(**reading.keys), weights)


@hookimpl
def opframe_components() -> list[type[Component]]:
    """The components of this plugin."""
    return [DPOT]
