"""DPOT, the denoising pre-trained operator transformer (Hao et al., ICML 2024, arXiv 2403.03542)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

from attrs import frozen

from opframe.layers.patch_keys import PatchBackbone
from opframe_registry import Component, Fields, Published, hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn


@final
@frozen(kw_only=True)
class DPOT(PatchBackbone):
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

    def build(self, fields: Fields) -> nn.Module:
        """Make the network. Raises ConfigError unless the grid is 2-D or 3-D and made of whole patches."""
        self.check(fields)
        from opframe_dpot.network import dpot

        return dpot(self, fields)

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
