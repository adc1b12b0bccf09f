"""Dense layers on channels-last tokens (B, …, D), with the parameter shapes of convolutions."""

from __future__ import annotations

import math
from typing import Any, cast

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


def grouped_dense(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x_g · W_g + b_g for every group g of the last axis: (N, h·I), W (h, I, O), b (h, 1, O) -> (N, h·O).

    On a CPU as a 1×1 convolution in groups, which is faster than a batch of products by as much as `dense` is.
    """
    if x.device.type != "cpu":
        return torch.baddbmm(bias, _by_group(x, weight), weight).transpose(0, 1).flatten(1)
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    return cast(Tensor, _GroupedDense.apply(x, weight, bias))  # type: ignore[no-untyped-call]


class _GroupedDense(torch.autograd.Function):
    """torch's own gradient of a convolution in groups is slower than that of a batch of products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _grouped_convolution(x, weight.mT, bias.flatten())

    @staticmethod
    def backward(ctx: Any, by_output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        by_output = by_output.contiguous()
        outputs = _by_group(by_output, weight)
        by_weight = _by_group(x, weight).mT @ outputs
        return _grouped_convolution(by_output, weight), by_weight, outputs.sum(1, keepdim=True)


def _grouped_convolution(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """(N, h·I), (h, O, I), (h·O,) -> (N, h·O)."""
    image = functional.conv2d(as_image(x), kernel.flatten(0, 1)[:, :, None, None], bias, groups=len(kernel))
    return image.movedim(1, -1).reshape(len(x), -1)


def _by_group(rows: Tensor, weight: Tensor) -> Tensor:
    """(N, h·I) -> (h, N, I)."""
    return torch.unflatten(rows, -1, (len(weight), -1)).transpose(0, 1)


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
