"""Fourier attention of DPOT (arXiv 2403.03542, section 3.3) on channels-last tokens.

Legend: B batch, X' Y' patches, D width, h heads, E = D/h, K and L modes kept along X' and Y'.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from opframe.layers.products import grouped_dense
from opframe.layers.transforms import CornerTransform


class FourierAttention(nn.Module):
    """F⁻¹ [MLP_ℂ (F z)]: a complex two-layer perceptron, one for each head, on every mode.

    Kept is the corner [:modes, :modes] of the half spectrum, as published: with modes < X' the negative
    frequencies along X' are lost. The transforms are separable products with small real matrices, which on
    grids of patches are faster than an FFT and stay channels-last. The weights are those of any grid.
    """

    def __init__(self, width: int, heads: int, patches: Sequence[int], modes: int) -> None:
        super().__init__()
        self.heads = heads
        size = width // heads
        self.w1, self.w2 = (nn.Parameter(torch.rand(2, heads, size, size) / size**2) for _ in range(2))
        self.b1, self.b2 = (nn.Parameter(torch.rand(2, heads, size) / size**2) for _ in range(2))
        self.transform = CornerTransform(patches, modes)

    def forward(self, z: Tensor) -> Tensor:
        """(B, X', Y', D) -> the same. Under autocast the transforms stay in float32, the perceptron does not."""
        modes: Tensor = self.transform(z)  # (B, K, 2, L·D)
        parts = torch.unflatten(modes, -1, (-1, self.heads, self.w1.shape[-1]))  # (B, K, 2, L, h, E)
        rows = parts.permute(4, 0, 1, 3, 2, 5).flatten(4).flatten(1, 3)  # (h, B·K·L, 2·E)
        parts = torch.unflatten(self._perceptron(rows), -1, (2, -1))
        parts = torch.unflatten(parts, 1, (*modes.shape[:2], -1))  # (h, B, K, L, 2, E)
        return self.transform.inverse(parts.permute(1, 2, 4, 3, 0, 5).flatten(3), z.shape[1:-1])

    def _perceptron(self, rows: Tensor) -> Tensor:
        """Rows [re, im] of each head, (h, N, 2·E) -> the same. GELU acts on both parts."""
        rows = functional.gelu(grouped_dense(rows, _real_product(self.w1), _real_bias(self.b1)))
        return grouped_dense(rows, _real_product(self.w2), _real_bias(self.b2))


def _real_product(weight: Tensor) -> Tensor:
    """The real matrices (h, 2E, 2E) that multiply rows [re, im] like the complex weight (2, h, E, E)."""
    real, imaginary = weight
    return torch.cat([torch.cat([real, imaginary], -1), torch.cat([-imaginary, real], -1)], -2)


def _real_bias(bias: Tensor) -> Tensor:
    """(2, h, E) -> (h, 1, 2E)."""
    return bias.transpose(0, 1).flatten(1)[:, None]
