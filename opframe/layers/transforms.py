"""Small discrete Fourier transforms as real matrices, orthonormal.

On grids of patches, and where few modes are kept, products with them are faster than an FFT, in any layout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from opframe.layers.dense import full_precision


class CornerTransform(nn.Module):
    """Real DFT of channels-last tokens over all axes of the grid, of which the corner [:modes, :modes, …] is kept.

    The transforms are separable: a half one along the last axis, then a complex one along each of the others.
    """

    to_half: Tensor
    from_half: Tensor

    def __init__(self, grid: Sequence[int], modes: int) -> None:
        super().__init__()
        *outer, last = grid
        self.kept = (*(min(modes, points) for points in outer), min(modes, last // 2 + 1))
        to_half, from_half = half_transform(last, self.kept[-1])
        self.register_buffer("to_half", to_half, persistent=False)
        self.register_buffer("from_half", from_half, persistent=False)
        for axis, points in enumerate(outer):
            self.register_buffer(f"full_{axis}", full_transform(points, self.kept[axis]), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """(B, X', Y', D) -> (B, K, 2, L·D), real parts first; from three axes, (B, K, 2, L·M·D)."""
        with full_precision(z):
            modes = torch.unflatten(self.to_half @ z.to(self.to_half.dtype), -2, (2, -1))  # (B, X', 2, L, D)
            modes = modes.transpose(-3, -2)
            for matrix in reversed(self._full()):
                rows = modes.transpose(-3, -2).flatten(-2).flatten(-3, -2)  # (B, X', L, 2, D) -> (B, X'·2, L·D)
                modes = torch.unflatten(matrix @ rows, -2, (-1, 2))  # (B, K, 2, L·D)
            return modes

    def inverse(self, modes: Tensor) -> Tensor:
        """The way back, where every mode that is not kept is zero."""
        with full_precision(modes):
            modes = modes.to(self.from_half.dtype)
            for matrix, kept in zip(self._full(), self.kept[1:], strict=True):
                rows = torch.unflatten(matrix.T @ modes.flatten(-3, -2), -2, (-1, 2))  # (B, X', 2, L·D)
                modes = torch.unflatten(rows, -1, (kept, -1)).transpose(-3, -2)  # (B, X', L, 2, D)
            return self.from_half @ modes.transpose(-3, -2).flatten(-3, -2)

    def _full(self) -> list[Tensor]:
        """The matrices of all axes but the last."""
        return [cast(Tensor, getattr(self, f"full_{axis}")) for axis in range(len(self.kept) - 1)]


def half_transform(points: int, modes: int) -> tuple[Tensor, Tensor]:
    """The first modes of a real orthonormal DFT, (2·modes, points), real parts first, and back, (points, 2·modes).

    On the way back every mode but the mean and the highest stands for its conjugate too.
    """
    angle = _angles(points, modes)
    transform = torch.cat([torch.cos(angle), -torch.sin(angle)]) / math.sqrt(points)
    alone = torch.arange(modes) * 2 % points == 0
    twice = torch.where(alone, 1.0, 2.0).repeat(2)
    return transform.float(), (transform * twice[:, None]).T.float().contiguous()


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
