"""Dense layers on channels-last tokens (B, …, D), with the parameter shapes of convolutions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from opframe.layers.products import dense


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context in which autocast leaves the precision of operations on the tensor's device alone."""
    return torch.autocast(tensor.device.type, enabled=False)


def unit_interval(points: int, like: Tensor) -> Tensor:
    """From 0 to 1, both ends included, on the device and in the precision of a tensor."""
    return torch.linspace(0, 1, points, dtype=like.dtype, device=like.device)


class Pointwise(nn.Module):
    """A dense layer on the last axis, whose weight has the shape (O, I, 1, 1) of a 1×1 convolution over some axes."""

    def __init__(self, inputs: int, outputs: int, axes: int = 2) -> None:
        super().__init__()
        self.weight = uniform((outputs, inputs, *[1] * axes), inputs)
        self.bias = uniform((outputs,), inputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, …, I) -> (B, …, O)."""
        return dense(x, self.weight.flatten(1), self.bias)


class TokenNorm(nn.Module):
    """GroupNorm of channels-last tokens, with the parameters of `nn.GroupNorm`."""

    def __init__(self, groups: int, width: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, z: Tensor) -> Tensor:
        """(B, …, D) -> the same. The statistics are those of a sample and a group of channels."""
        return functional.group_norm(z.movedim(-1, 1), self.groups, self.weight, self.bias).movedim(1, -1)


def uniform(shape: tuple[int, ...], inputs: int) -> nn.Parameter:
    """What torch's own convolutions begin with: uniform in ±1/√(number of inputs)."""
    bound = 1 / math.sqrt(inputs)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
