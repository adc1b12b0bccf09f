"""The spectral convolution of FNO (Li et al., ICLR 2021, arXiv 2010.08895, section 4), on channels-last tokens.

Only the kept modes are computed, by products with small real matrices, one axis after the other.

Legend: B batch, N axes of space, X_a points and K_a kept modes of axis a, L = K_{N−1}, D width, s choices of signs
(2^(N−1)), M = ∏ K_a modes for each choice, c = 2 real and imaginary part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from opframe.layers.dense import full_precision
from opframe.layers.transforms import full_transform, half_transform


class SpectralConvolution(nn.Module):
    """F⁻¹ [R · F z]: every kept mode is multiplied by a complex D×D matrix of its own.

    Kept are the frequencies 0 … K−1 and −K … −1 of every axis but the last, and 0 … L−1 of the last, whose negative
    ones are conjugates. Every choice of signs has a weight (c, D, D, K_0, …, L): the sign of axis a is bit a of the
    number in its name, counted from 0. In two dimensions these are the published weights.
    """

    def __init__(self, width: int, grid: Sequence[int], modes: Sequence[int]) -> None:
        super().__init__()
        self.transform = ModeTransform(grid, modes)
        self.names = tuple(f"weights{number + 1}" for number in range(2 ** (len(grid) - 1)))
        for name in self.names:
            self.register_parameter(name, nn.Parameter(torch.rand(2, width, width, *modes) / width**2))

    def forward(self, z: Tensor) -> Tensor:
        """(B, *grid, D) -> the same, in the precision of the weights under autocast too."""
        with full_precision(z):
            matrices = [_modes_first(cast(Tensor, getattr(self, name))) for name in self.names]  # (M, c·D, D)
            real, imaginary = self.transform(z.to(matrices[0].dtype))  # (s, M, B, D)
            rows = torch.cat([torch.cat([real, -imaginary], -1), torch.cat([imaginary, real], -1)], -2)
            products = [part @ matrix for part, matrix in zip(rows, matrices, strict=True)]  # (M, c·B, D)
            return self.transform.inverse(torch.stack(products))


def _modes_first(weight: Tensor) -> Tensor:
    """(c, D, D, K_0, …) -> (M, c·D, D)."""
    matrix: Tensor = _Transpose.apply(weight.flatten(3).flatten(0, 2))  # type: ignore[no-untyped-call]
    return matrix.view(len(matrix), -1, weight.shape[2])


class _Transpose(torch.autograd.Function):
    """A transposed copy of a matrix, whose gradient is copied as a matrix too.

    Without that torch would copy the gradient when it is added to that of the weight, with all axes of the weight,
    which takes four times as long.
    """

    @staticmethod
    def forward(matrix: Tensor) -> Tensor:
        return matrix.T.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Nothing needs to be kept."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.T.contiguous()


class ModeTransform(nn.Module):
    """The kept modes of an orthonormal real DFT over all axes of the grid, and the way back.

    A half transform of the last axis comes first, then a complex one of each other axis, from the last to the first.
    Each product leaves the two parts of a number before its own axis, beside the axis that comes next.
    """

    def __init__(self, grid: Sequence[int], modes: Sequence[int]) -> None:
        super().__init__()
        *outer, last = range(len(grid))
        self.grid = tuple(grid)
        self.spectrum = (2, *(2 * modes[axis] for axis in outer), modes[last])
        pairs = [signed_transform(grid[axis], modes[axis]) for axis in outer]
        for axis, (there, back) in enumerate([*pairs, half_transform(grid[last], modes[last])]):
            self.register_buffer(f"there_{axis}", there, persistent=False)
            self.register_buffer(f"back_{axis}", back.contiguous(), persistent=False)
        signs, kept = [f"s{axis}" for axis in reversed(outer)], [f"k{axis}" for axis in range(len(grid))]
        self.by_axis = " ".join([*(f"(s{axis} k{axis})" for axis in outer), kept[last]])
        self.by_sign = f"({' '.join(signs)}) ({' '.join(kept)})"
        self.lengths = {**dict.fromkeys(signs, 2), **dict(zip(kept, modes, strict=True))}

    def forward(self, z: Tensor) -> Tensor:
        """(B, *grid, D) -> (c, s, M, B, D)."""
        samples, width = len(z), z.shape[-1]
        for axis in reversed(range(len(self.grid))):
            z = self._product(f"there_{axis}", z, samples * math.prod(self.grid[:axis]))
        z = z.view(samples, *self.spectrum, width)
        return rearrange(z, f"b c {self.by_axis} d -> c {self.by_sign} b d", **self.lengths)

    def inverse(self, modes: Tensor) -> Tensor:
        """(s, M, c·B, D) -> (B, *grid, D). Modes that are not kept are zero."""
        samples, width = modes.shape[-2] // 2, modes.shape[-1]
        z = rearrange(modes, f"{self.by_sign} (c b) d -> b c {self.by_axis} d", c=2, **self.lengths)
        for axis in range(len(self.grid)):
            z = self._product(f"back_{axis}", z, samples * math.prod(self.grid[:axis]))
        return z.view(samples, *self.grid, width)

    def _product(self, name: str, z: Tensor, count: int) -> Tensor:
        """Multiply what stands between the first `count` numbers and the rest."""
        matrix = cast(Tensor, getattr(self, name))
        return matrix @ z.reshape(count, matrix.shape[1], -1)


def signed_transform(points: int, modes: int) -> tuple[Tensor, Tensor]:
    """A complex orthonormal DFT to the frequencies 0 … K−1 and −K … −1, (c·2K, X·c), and back, (X·c, c·2K).

    The two parts stand apart on the side of the frequencies and alternate on the side of the points.
    """
    frequencies = [*range(modes), *range(points - modes, points)]
    every = torch.unflatten(full_transform(points, points), 0, (points, 2))  # (X, c, X·c)
    there = every[frequencies].transpose(0, 1).flatten(0, 1)
    return there, there.T
