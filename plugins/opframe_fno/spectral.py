"""The layer of FNO (Li et al., ICLR 2021, arXiv 2010.08895, sections 3 and 4), on channels-last tokens.

Only the kept modes are computed, by products with small real matrices, one axis after the other.

Legend: B batch, N axes of space, X_a points and K_a kept modes of axis a, L = K_{N−1}, D width, s choices of signs
(2^(N−1)), M = s·∏ K_a modes, c = 2 real and imaginary part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from opframe.layers.dense import Pointwise, full_precision
from opframe.layers.products import dense
from opframe.layers.transforms import full_transform, half_transform


class SpectralConvolution(nn.Module):
    """F⁻¹ [R · F z], to which a pointwise layer of z is added: every kept mode has a complex D×D matrix of its own.

    Kept are the frequencies 0 … K−1 and −K … −1 of every axis but the last, and 0 … L−1 of the last, whose negative
    ones are conjugates. `weight` is (s, K_0, …, L, c·D, D), real rows first: bit a of the first index says whether
    the frequencies of axis a are the negative ones.
    """

    def __init__(self, width: int, modes: Sequence[int]) -> None:
        super().__init__()
        self.modes = tuple(modes)
        self.weight = nn.Parameter(torch.rand(2 ** (len(modes) - 1), *modes, 2 * width, width) / width**2)

    def forward(self, z: Tensor, transform: Sequence[Tensor], pointwise: Pointwise) -> Tensor:
        """(B, *grid, D) -> the same, in the precision of the weights under autocast too."""
        with full_precision(z):
            weight, bias, matrices = pointwise.weight.flatten(1), pointwise.bias, self.weight.flatten(0, -3)
            sums: Tensor = _Sum.apply(  # type: ignore[no-untyped-call]
                z.to(matrices.dtype), weight, bias, matrices, self.modes, *transform
            )
        return sums


class _Sum(torch.autograd.Function):
    """Both parts of a layer, the second added to the first where that stands; and so for the gradients of z.

    Left to itself torch would write every sum to fresh memory, which costs as much as a product.
    """

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, weight: Tensor, bias: Tensor, matrices: Tensor, modes: Sequence[int], *transform: Tensor
    ) -> Tensor:
        there, back = transform[: len(modes)], transform[len(modes) :]
        real, imaginary = _to_modes(z, there, modes).unbind(2)
        rows = torch.stack([real, -imaginary, imaginary, real], 2).view(len(matrices), -1, matrices.shape[1])
        ctx.modes = modes
        ctx.save_for_backward(z, weight, matrices, rows, *transform)
        sums = _from_modes(rows @ matrices, back, modes, z.shape[1:-1])
        sums += dense(z, weight, bias)
        return sums

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        z, weight, matrices, rows, *transform = ctx.saved_tensors
        transposed = [matrix.T for matrix in transform]
        there, back = transposed[: len(ctx.modes)], transposed[len(ctx.modes) :]
        products = _to_modes(gradient, back, ctx.modes).flatten(1, 2)  # (M, B·c, D)
        first, second, third, fourth = (products @ matrices.mT).view(len(rows), len(z), 4, -1).unbind(2)
        parts = torch.stack([first + fourth, third - second], 2).flatten(1, 2)
        dz = _from_modes(parts, there, ctx.modes, z.shape[1:-1])
        dz += dense(gradient, weight.T)
        flat = gradient.flatten(0, -2)
        return dz, flat.T @ z.flatten(0, -2), flat.sum(0), rows.mT @ products, None, *[None] * len(transform)


def _to_modes(z: Tensor, matrices: Sequence[Tensor], modes: Sequence[int]) -> Tensor:
    """(B, *grid, D) -> (M, B, c, D), the last axis first. Each product leaves c before its own axis."""
    samples, *grid, width = z.shape
    for axis in reversed(range(len(grid))):
        z = _product(matrices[axis], z, samples * math.prod(grid[:axis]))
    by_axis, by_sign, lengths = _orders(modes)
    spectrum = z.view(samples, 2, *(2 * kept for kept in modes[:-1]), modes[-1], width)
    return rearrange(spectrum, f"b c {by_axis} d -> {by_sign} b c d", **lengths)


def _from_modes(parts: Tensor, matrices: Sequence[Tensor], modes: Sequence[int], grid: Sequence[int]) -> Tensor:
    """(M, B·c, D) -> (B, *grid, D), the first axis first. Modes that are not kept are zero."""
    by_axis, by_sign, lengths = _orders(modes)
    z = rearrange(parts, f"{by_sign} (b c) d -> b c {by_axis} d", c=2, **lengths)
    samples, width = len(z), z.shape[-1]
    for axis, matrix in enumerate(matrices):
        z = _product(matrix, z, samples * math.prod(grid[:axis]))
    return z.view(samples, *grid, width)


def _product(matrix: Tensor, z: Tensor, count: int) -> Tensor:
    """Multiply what stands between the first `count` numbers and the rest."""
    return matrix @ z.reshape(count, matrix.shape[1], -1)


def _orders(modes: Sequence[int]) -> tuple[str, str, dict[str, int]]:
    """Axes of modes for einops: as the transform has them, as the weight has them, and how long they are."""
    *outer, last = range(len(modes))
    signs, kept = [f"s{axis}" for axis in reversed(outer)], [f"k{axis}" for axis in range(len(modes))]
    by_axis = " ".join([*(f"(s{axis} k{axis})" for axis in outer), f"k{last}"])
    return by_axis, f"({' '.join([*signs, *kept])})", {**dict.fromkeys(signs, 2), **dict(zip(kept, modes, strict=True))}


class ModeTransform(nn.Module):
    """Matrices of an orthonormal real DFT to the kept modes and back, of each axis: those of one grid are kept.

    A half transform of the last axis comes first, then a complex one of each other axis, from the last to the first.
    """

    def __init__(self, grid: Sequence[int], modes: Sequence[int]) -> None:
        super().__init__()
        self.grid, self.modes = tuple(grid), tuple(modes)
        for number, matrix in enumerate(transform_matrices(grid, modes)):
            self.register_buffer(f"matrix_{number}", matrix, persistent=False)

    def forward(self, z: Tensor) -> list[Tensor]:
        """The matrices for (B, *grid, …), first all those there, then all those back."""
        kept, grid = list(self.buffers()), tuple(z.shape[1 : 1 + len(self.grid)])
        if grid == self.grid:
            return kept
        return [matrix.to(kept[0].dtype) for matrix in transform_matrices(grid, self.modes, z.device)]


def transform_matrices(grid: Sequence[int], modes: Sequence[int], device: torch.device | None = None) -> list[Tensor]:
    """Of all axes there, (c·2K, X·c) and for the last (c·L, X), then of all axes back."""
    *outer, last = range(len(grid))
    pairs = [signed_transform(grid[axis], modes[axis], device) for axis in outer]
    there, back = zip(*pairs, half_transform(grid[last], modes[last], device), strict=True)
    return [matrix.contiguous() for matrix in (*there, *back)]


def signed_transform(points: int, modes: int, device: torch.device | None) -> tuple[Tensor, Tensor]:
    """A complex orthonormal DFT to the frequencies 0 … K−1 and −K … −1, (c·2K, X·c), and back, (X·c, c·2K).

    The two parts stand apart on the side of the frequencies and alternate on the side of the points.
    """
    frequencies = [*range(modes), *range(points - modes, points)]
    every = torch.unflatten(full_transform(points, points, device), 0, (points, 2))  # (X, c, X·c)
    there = every[frequencies].transpose(0, 1).flatten(0, 1)
    return there, there.T
