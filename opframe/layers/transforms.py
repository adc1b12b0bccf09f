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

    The transforms are separable: a half one along the last axis, then a complex one along each of the others. Any
    grid may come; the matrices of the one that is named here are buffers, those of others are made when they come.
    """

    def __init__(self, grid: Sequence[int], modes: int) -> None:
        super().__init__()
        self._grid, self._modes = tuple(grid), modes
        self._others: dict[tuple[object, ...], list[Tensor]] = {}
        for index, matrix in enumerate(_matrices(self._grid, _kept(grid, modes))):
            self.register_buffer(f"matrix_{index}", matrix, persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """(B, X', Y', D) -> (B, K, 2, L·D), real parts first; from three axes, (B, K, 2, L·M·D)."""
        to_half, _, *full = self._matrices(z.shape[1:-1])
        with full_precision(z):
            modes = torch.unflatten(to_half @ z.to(to_half.dtype), -2, (2, -1))  # (B, X', 2, L, D)
            modes = modes.transpose(-3, -2)
            for matrix in reversed(full):
                rows = modes.transpose(-3, -2).flatten(-2).flatten(-3, -2)  # (B, X', L, 2, D) -> (B, X'·2, L·D)
                modes = torch.unflatten(matrix @ rows, -2, (-1, 2))  # (B, K, 2, L·D)
            return modes

    def inverse(self, modes: Tensor, grid: Sequence[int]) -> Tensor:
        """The way back to a grid, where every mode that is not kept is zero."""
        _, from_half, *full = self._matrices(grid)
        with full_precision(modes):
            modes = modes.to(from_half.dtype)
            for matrix, kept in zip(full, _kept(grid, self._modes)[1:], strict=True):
                rows = torch.unflatten(matrix.T @ modes.flatten(-3, -2), -2, (-1, 2))  # (B, X', 2, L·D)
                modes = torch.unflatten(rows, -1, (kept, -1)).transpose(-3, -2)  # (B, X', L, 2, D)
            return from_half @ modes.transpose(-3, -2).flatten(-3, -2)

    def _matrices(self, grid: Sequence[int]) -> list[Tensor]:
        """Of a half transform, there and back, then of the full transforms of all axes but the last."""
        grid = tuple(grid)
        own = [cast(Tensor, getattr(self, f"matrix_{index}")) for index in range(len(self._grid) + 1)]
        if grid == self._grid:
            return own
        like = own[0]
        if torch.compiler.is_compiling():  # part of the graph, which is one for each grid
            return [matrix.to(like.dtype) for matrix in _matrices(grid, _kept(grid, self._modes), like.device)]
        key = (grid, like.dtype, like.device)
        if key not in self._others:
            with torch.inference_mode(False):  # what is made in inference mode cannot serve training
                made = _matrices(grid, _kept(grid, self._modes), like.device)
                self._others[key] = [matrix.to(like.dtype) for matrix in made]
        return self._others[key]


def _kept(grid: Sequence[int], modes: int) -> list[int]:
    """How many modes are kept along each axis."""
    return [*(min(modes, points) for points in grid[:-1]), min(modes, grid[-1] // 2 + 1)]


def _matrices(grid: Sequence[int], kept: Sequence[int], device: torch.device | None = None) -> list[Tensor]:
    full = [full_transform(points, modes, device) for points, modes in zip(grid[:-1], kept[:-1], strict=True)]
    return [*half_transform(grid[-1], kept[-1], device), *full]


def half_transform(points: int, modes: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """The first modes of a real orthonormal DFT, (2·modes, points), real parts first, and back, (points, 2·modes).

    On the way back every mode but the mean and the highest stands for its conjugate too.
    """
    angle = _angles(points, modes, device)
    transform = torch.cat([torch.cos(angle), -torch.sin(angle)]) / math.sqrt(points)
    alone = torch.arange(modes, device=device) * 2 % points == 0
    twice = torch.where(alone, 1.0, 2.0).repeat(2)
    return transform.float(), (transform * twice[:, None]).T.float().contiguous()


def full_transform(points: int, modes: int, device: torch.device | None = None) -> Tensor:
    """The first modes of a complex orthonormal DFT on alternating real and imaginary parts, (modes·2, points·2).

    Its transpose is the way back.
    """
    angle = _angles(points, modes, device)
    cosine, sine = torch.cos(angle) / math.sqrt(points), torch.sin(angle) / math.sqrt(points)
    pairs = torch.stack([torch.stack([cosine, sine], -1), torch.stack([-sine, cosine], -1)], 1)
    return rearrange(pairs, "k r x c -> (k r) (x c)").float()


def _angles(points: int, modes: int, device: torch.device | None) -> Tensor:
    """2π·kx/N for mode k (rows) and point x (columns), in float64."""
    k, x = (torch.arange(count, device=device) for count in (modes, points))
    turns = torch.remainder(torch.outer(k, x), points).double()
    return turns * (2 * math.pi / points)
