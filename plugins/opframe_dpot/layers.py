"""Dense layers on channels-last tokens (B, X', Y', D), with the parameter shapes of convolutions.

Legend: B batch, T frames, C channels, X Y grid, P side of a patch, X' = X/P, Y' = Y/P.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context in which autocast leaves the precision of operations on the tensor's device alone."""
    return torch.autocast(tensor.device.type, enabled=False)


def dense(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias over the last axis: (B, …, I), (O, I), (O,) -> (B, …, O), with two or more axes in …

    On a CPU it runs as a 1×1 convolution of a channels-last image. That reaches oneDNN, which in float32 is
    about twice as fast on AMD as the MKL product behind `F.linear`.
    """
    if x.device.type != "cpu":
        return functional.linear(x, weight, bias)
    image = x.flatten(1, -3).movedim(-1, 1)
    return functional.conv2d(image, weight[:, :, None, None], bias).movedim(1, -1).reshape(*x.shape[:-1], len(weight))


def unit_interval(points: int, like: Tensor) -> Tensor:
    """From 0 to 1, both ends included, on the device and in the precision of a tensor."""
    return torch.linspace(0, 1, points, dtype=like.dtype, device=like.device)


class Pointwise(nn.Module):
    """A dense layer on the last axis, whose weight has the shape (O, I, 1, 1) of a 1×1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = _uniform((outputs, inputs, 1, 1), inputs)
        self.bias = _uniform((outputs,), inputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, …, I) -> (B, …, O)."""
        return dense(x, self.weight.flatten(1), self.bias)


class PatchConvolution(nn.Module):
    """Convolution with stride P of the channels and of three coordinates: x, y and t from 0 to 1, both included.

    The coordinates enter linearly and apart from each other, so that they act as a bias that is made from a few
    numbers per axis; only the C channels are multiplied.
    """

    def __init__(self, channels: int, outputs: int, patch: int) -> None:
        super().__init__()
        inputs = channels + 3
        self.weight = _uniform((outputs, inputs, patch, patch), inputs * patch**2)
        self.bias = _uniform((outputs,), inputs * patch**2)

    def forward(self, u: Tensor) -> Tensor:
        """(B, T, C, X, Y) -> (B, X', Y', T, O)."""
        patch = self.weight.shape[-1]
        patches = rearrange(u, "b t c (x p) (y q) -> b x y t (c p q)", p=patch, q=patch)
        return dense(patches, self.weight[:, :-3].flatten(1)) + self._coordinates(u)

    def _coordinates(self, u: Tensor) -> Tensor:
        """What coordinates and bias add: (X', Y', T, O)."""
        with full_precision(u):
            weight_x, weight_y, weight_t = self.weight[:, -3:].unbind(1)  # (O, P, P) each
            x, y = (unit_interval(points, self.weight).view(-1, weight_x.shape[1]) for points in u.shape[3:])
            along_x, along_y = x @ weight_x.sum(2).T, y @ weight_y.sum(1).T  # (X', O), (Y', O)
            along_t = unit_interval(u.shape[1], self.weight)[:, None] * weight_t.sum((1, 2)) + self.bias
            return along_x[:, None, None] + along_y[:, None] + along_t


class PatchExpansion(nn.Module):
    """Transposed convolution with stride P that leaves the points of a patch as rows, for layers on each point."""

    def __init__(self, inputs: int, outputs: int, patch: int) -> None:
        super().__init__()
        self.weight = _uniform((inputs, outputs, patch, patch), outputs * patch**2)
        self.bias = _uniform((outputs,), outputs * patch**2)

    def forward(self, z: Tensor) -> Tensor:
        """(B, X', Y', I) -> (B, X', Y', P·P, O)."""
        points = self.weight.shape[-1] ** 2
        kernel = rearrange(self.weight, "i o p q -> (p q o) i")
        rows = dense(z, kernel, self.bias.repeat(points))
        return rows.view(*z.shape[:-1], points, -1)


def _uniform(shape: tuple[int, ...], inputs: int) -> nn.Parameter:
    """What torch's own convolutions begin with: uniform in ±1/√(number of inputs)."""
    bound = 1 / math.sqrt(inputs)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
