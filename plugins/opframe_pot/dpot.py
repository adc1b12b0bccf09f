"""The network of DPOT (Hao et al., ICML 2024, arXiv 2403.03542): a patch transformer with Fourier attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from opframe.layers.dense import Pointwise, TokenNorm
from opframe_pot.attention import FourierAttention
from opframe_pot.patch_keys import NORM_GROUPS
from opframe_pot.patch_transformer import Mixed, PatchTransformer, patch_grid
from opframe_registry import Fields

if TYPE_CHECKING:
    from opframe_pot.settings import DPOT


def dpot(settings: DPOT, fields: Fields) -> PatchTransformer:
    """The network, with fresh weights."""
    patches = patch_grid(settings, fields)
    return PatchTransformer(settings, fields, (Block(settings, patches) for _ in range(settings.depth)))


class Block(nn.Module):
    """Fourier attention, then a perceptron on each token. The inner skip carries the normalised tokens."""

    def __init__(self, settings: DPOT, patches: Sequence[int]) -> None:
        super().__init__()
        width, hidden, axes = settings.width, settings.hidden, len(patches)
        self.norm1 = TokenNorm(NORM_GROUPS, width)
        self.filter = FourierAttention(width, settings.heads, patches, settings.modes)
        self.norm2 = TokenNorm(NORM_GROUPS, width)
        self.mlp = nn.Sequential(Pointwise(width, hidden, axes), nn.GELU(), Pointwise(hidden, width, axes))

    def forward(self, z: Tensor) -> Mixed:
        """(B, *patches, D) -> the same."""
        normal = self.norm1(z)
        return Mixed(tokens=self.mlp(self.norm2(normal + self.filter(normal))) + z)
