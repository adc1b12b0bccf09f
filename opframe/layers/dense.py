"""Dense layers on channels-last tokens (B, …, D), with the parameter shapes of convolutions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_IMAGES = 16


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context in which autocast leaves the precision of operations on the tensor's device alone."""
    return torch.autocast(tensor.device.type, enabled=False)


def dense(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias over the last axis: (B, …, I), (O, I), (O,) -> (B, …, O), with one or more axes in …

    On a CPU it runs as a 1×1 convolution of a channels-last image. That reaches oneDNN, which in float32 is
    about twice as fast on AMD as the MKL product behind `F.linear`.
    """
    if x.device.type != "cpu":
        return functional.linear(x, weight, bias)
    image = functional.conv2d(as_image(x), weight[:, :, None, None], bias)
    return image.movedim(1, -1).reshape(*x.shape[:-1], len(weight))


def as_image(x: Tensor) -> Tensor:
    """Rows of (…, I) as a channels-last batch of images (N, I, H, 1).

    There are 16 of them where the rows can be shared equally: with fewer, one thread does not reach oneDNN.
    """
    images = 1 if (x.numel() // x.shape[-1]) % _IMAGES else _IMAGES
    return x.reshape(images, -1, 1, x.shape[-1]).movedim(-1, 1)


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
