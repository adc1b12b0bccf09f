"""From grid points to patches and back, on channels-last tokens (B, X', Y', D), with any number of axes.

Legend: B batch, T frames, C channels, X Y grid of N axes, P side of a patch, X' = X/P, Y' = Y/P.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from opframe.layers.dense import full_precision, uniform, unit_interval
from opframe.layers.derived import derived
from opframe.layers.products import dense


class PatchConvolution(nn.Module):
    """Convolution with stride P of the channels and of N + 1 coordinates: x, y, … and t from 0 to 1, both included.

    The coordinates enter linearly and apart from each other, so that they act as a bias that is made from a few
    numbers per axis; only the C channels are multiplied.
    """

    def __init__(self, channels: int, outputs: int, patch: int, axes: int = 2) -> None:
        super().__init__()
        inputs = channels + axes + 1
        self.weight = uniform((outputs, inputs, *[patch] * axes), inputs * patch**axes)
        self.bias = uniform((outputs,), inputs * patch**axes)

    def forward(self, u: Tensor) -> Tensor:
        """(B, T, C, X, Y) -> (B, X', Y', T, O)."""
        coordinates = self.weight.ndim - 1
        product = dense(gather_patches(u, self.weight.shape[-1]), self.weight[:, :-coordinates].flatten(1))
        with full_precision(u):
            return product + _coordinates(self.weight, self.bias, (u.shape[1], *u.shape[3:]))


def _coordinates(weight: Tensor, bias: Tensor, sizes: Sequence[int]) -> Tensor:
    """What coordinates and bias add: weight (O, C + N + 1, P, P), sizes (T, X, Y) -> (X', Y', T, O)."""
    patch, (frames, *grid) = weight.shape[-1], sizes
    *along_axes, along_time = weight[:, -len(grid) - 1 :].unbind(1)  # (O, P, P) each
    added = unit_interval(frames, weight)[:, None] * along_time.flatten(1).sum(1) + bias
    for axis in reversed(range(len(grid))):
        steps = along_axes[axis].movedim(axis + 1, 1).reshape(len(bias), patch, -1).sum(2)  # (O, P)
        along = unit_interval(grid[axis], weight).view(-1, patch) @ steps.T  # (X', O)
        added = along.view(-1, *[1] * (added.ndim - 1), len(bias)) + added
    return added


class PatchExpansion(nn.Module):
    """Transposed convolution with stride P that leaves the points of a patch as rows, for layers on each point."""

    def __init__(self, inputs: int, outputs: int, patch: int, axes: int = 2) -> None:
        super().__init__()
        self.weight = uniform((inputs, outputs, *[patch] * axes), outputs * patch**axes)
        self.bias = uniform((outputs,), outputs * patch**axes)

    def forward(self, z: Tensor) -> Tensor:
        """(B, X', Y', I) -> (B, X', Y', P·P, O)."""
        kernel, bias = derived(_by_points, self.weight, self.bias)
        return torch.unflatten(dense(z, kernel.T, bias), -1, (-1, len(self.bias)))


def _by_points(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """(I, O, P, P), (O,) -> (I, P·P·O), (P·P·O,)."""
    return weight.flatten(2).mT.flatten(1), bias.repeat(weight[0, 0].numel())


def gather_patches(u: Tensor, patch: int) -> Tensor:
    """The points of every patch as one row for each frame: (B, T, C, X, Y) -> (B, X', Y', T, C·P·P)."""
    axes = u.ndim - 3
    for axis in reversed(range(3, u.ndim)):
        u = torch.unflatten(u, axis, (-1, patch))
    patches, points = range(3, u.ndim, 2), range(4, u.ndim, 2)
    return u.permute(0, *patches, 1, 2, *points).flatten(-axes - 1)


def scatter_patches(points: Tensor, patch: int, frames: int) -> Tensor:
    """The way back for rows of points: (B, X', Y', P·P, S·C) -> (B, S, C, X, Y), with S frames."""
    axes = points.ndim - 3
    u = torch.unflatten(torch.unflatten(points, -1, (frames, -1)), -3, [patch] * axes)  # (B, X', Y', P, P, S, C)
    pairs = [axis for first in range(1, axes + 1) for axis in (first, first + axes)]
    u = u.permute(0, -2, -1, *pairs)  # (B, S, C, X', P, Y', P)
    for axis in range(3, axes + 3):
        u = u.flatten(axis, axis + 1)
    return u
