"""Fourier attention of DPOT (arXiv 2403.03542, section 3.3) on channels-last tokens.

Legend: B batch, X' Y' patches, D width, h heads, E = D/h, K and L modes kept along X' and Y'.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from opframe_dpot.layers import full_precision


class FourierAttention(nn.Module):
    """F⁻¹ [MLP_ℂ (F z)]: a complex two-layer perceptron, one for each head, on every mode.

    Kept is the corner [:modes, :modes] of the half spectrum, as published: with modes < X' the negative
    frequencies along X' are lost. The transforms are separable products with small real matrices, which on
    grids of patches are faster than an FFT and stay channels-last.
    """

    to_x: Tensor
    to_y: Tensor
    from_y: Tensor

    def __init__(self, width: int, heads: int, patches: tuple[int, int], modes: int) -> None:
        super().__init__()
        self.heads = heads
        size = width // heads
        self.w1, self.w2 = (nn.Parameter(torch.rand(2, heads, size, size) / size**2) for _ in range(2))
        self.b1, self.b2 = (nn.Parameter(torch.rand(2, heads, size) / size**2) for _ in range(2))
        to_y, from_y = half_transform(patches[1], min(modes, patches[1] // 2 + 1))
        self.register_buffer("to_x", full_transform(patches[0], min(modes, patches[0])), persistent=False)
        self.register_buffer("to_y", to_y, persistent=False)
        self.register_buffer("from_y", from_y, persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """(B, X', Y', D) -> the same. Under autocast the transforms stay in float32, the perceptron does not."""
        (samples, _, _, width), kept = z.shape, len(self.to_y) // 2  # kept = L
        with full_precision(z):
            columns = self.to_y @ z.to(self.to_y.dtype)  # (B, X', 2·L, D)
            modes = self.to_x @ rearrange(columns, "b x (c l) d -> b (x c) (l d)", c=2)  # (B, K·2, L·D)
        rows = rearrange(modes, "b (k c) (l h e) -> h (b k l) (c e)", c=2, h=self.heads, l=kept)
        rows = self._perceptron(rows)
        modes = rearrange(rows, "h (b k l) (c e) -> b (k c) (l h e)", b=samples, c=2, l=kept)
        with full_precision(z):
            columns = self.to_x.T @ modes.to(self.to_x.dtype)  # (B, X'·2, L·D)
            return self.from_y @ rearrange(columns, "b (x c) (l d) -> b x (c l) d", c=2, d=width)

    def _perceptron(self, rows: Tensor) -> Tensor:
        """Rows [re, im] of every head, (h, N, 2E) -> the same. GELU acts on both parts."""
        rows = functional.gelu(torch.baddbmm(_real_bias(self.b1), rows, _real_product(self.w1)))
        return torch.baddbmm(_real_bias(self.b2), rows, _real_product(self.w2))


def _real_product(weight: Tensor) -> Tensor:
    """The real matrices (h, 2E, 2E) that multiply rows [re, im] like the complex weight (2, h, E, E)."""
    real, imaginary = weight
    return torch.cat([torch.cat([real, imaginary], -1), torch.cat([-imaginary, real], -1)], -2)


def _real_bias(bias: Tensor) -> Tensor:
    """(2, h, E) -> (h, 1, 2E)."""
    return rearrange(bias, "c h e -> h 1 (c e)")


def half_transform(points: int, modes: int) -> tuple[Tensor, Tensor]:
    """The first modes of a real orthonormal DFT, (2·modes, points), real parts first, and back, (points, 2·modes).

    On the way back every mode but the mean and the highest stands for its conjugate too.
    """
    angle = _angles(points, modes)
    transform = torch.cat([torch.cos(angle), -torch.sin(angle)]) / math.sqrt(points)
    alone = torch.arange(modes) * 2 % points == 0
    twice = torch.where(alone, 1.0, 2.0).repeat(2)
    return transform.float(), (transform * twice[:, None]).T.float()


def full_transform(points: int, modes: int) -> Tensor:
    """The first modes of a complex orthonormal DFT on alternating real and imaginary parts, (modes·2, points·2).

    Its transpose is the way back.
    """
    angle = _angles(points, modes)
    cosine, sine = torch.cos(angle) / math.sqrt(points), torch.sin(angle) / math.sqrt(points)
    pairs = torch.stack([torch.stack([cosine, sine], -1), torch.stack([-sine, cosine], -1)], 1)
    return rearrange(pairs, "k r x c -> (k r) (x c)").float()


def _angles(points: int, modes: int) -> Tensor:
    """2π·kx/N for mode k (rows) and point x (columns), in float64."""
    turns = torch.remainder(torch.outer(torch.arange(modes), torch.arange(points)), points).double()
    return turns * (2 * math.pi / points)
