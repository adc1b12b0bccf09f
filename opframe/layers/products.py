"""Matrix products in float32 on a CPU by oneDNN, which on AMD is about twice as fast as the MKL behind torch's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

_ONEDNN: bool = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)
_TALL = 4
"""Rows for each column from which the gradient of a convolution is faster than a product of transposed matrices."""
_IMAGES = 16


def dense(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias over the last axis: (…, I), (O, I), (O,) -> (…, O)."""
    if not served(x):
        return functional.linear(x, weight, bias)
    rows: Tensor = _Dense.apply(x.reshape(-1, x.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
    return rows.view(*x.shape[:-1], -1)


def grouped_dense(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x_g · W_g + b_g for every group g: (h, N, I), (h, I, O), (h, 1, O) -> (h, N, O)."""
    if not served(x):
        return torch.baddbmm(bias, x, weight)
    return cast(Tensor, _GroupedDense.apply(x, weight, bias))  # type: ignore[no-untyped-call]


def served(x: Tensor) -> bool:
    """Whether `product` takes such a tensor, and may: autocast has an own precision for products."""
    return _ONEDNN and x.device.type == "cpu" and x.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_output: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(by_output, weight.T) if of_x else None,
            outer_product(by_output, x) if of_weight else None,
            by_output.sum(0) if of_bias else None,
        )


class _GroupedDense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight.mT, bias[:, 0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return product(by_output, weight), product(x.mT, by_output.mT), by_output.sum(1, keepdim=True)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias, without gradients: (N, I), (O, I), (O,) -> (N, O). Either matrix may be a transposed one.

    Where x is `served` there may be several: (h, N, I), (h, O, I), (h, O) -> (h, N, O).
    """
    if not served(x):
        return functional.linear(x, weight, bias)
    return cast(Tensor, torch.ops.opframe.product(x, weight, bias))


# Torch's compiler takes oneDNN's own operation for inference only, so that it gets to see one of ours.
torch.library.define("opframe::product", "(Tensor x, Tensor weight, Tensor? bias) -> Tensor")


@torch.library.impl("opframe::product", "CPU")
def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if x.ndim == 2:
        return _onednn(x, weight, bias)
    biases = [None] * len(x) if bias is None else bias
    return torch.stack([_onednn(*group) for group in zip(x, weight, biases, strict=True)])


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(_matrix(x), _matrix(weight), bias, "none", [], None)
    return found


@torch.library.register_fake("opframe::product")  # type: ignore[untyped-decorator]
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[-2])


@register_flop_formula(torch.ops.opframe.product)
def _flops(x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    return 2 * math.prod(x) * weight[-2]


def outer_product(a: Tensor, b: Tensor) -> Tensor:
    """aᵀ · b, as in the gradient of a weight, without gradients: (N, I), (N, O) -> (I, O).

    The narrower one goes first.
    """
    if not served(a):
        return a.T @ b
    if len(a) >= _TALL * max(a.shape[1], b.shape[1]):
        kernel = a.new_empty(a.shape[1], b.shape[1], 1, 1)
        settings: tuple[Any, ...] = ([0], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False])
        found = torch.ops.aten.convolution_backward(_image(a), _image(b), kernel, *settings)
        return cast(Tensor, found[1]).flatten(1)
    return product(a.T, b.T) if a.shape[1] <= b.shape[1] else product(b.T, a.T).T


def _matrix(matrix: Tensor) -> Tensor:
    """Contiguous, or the transpose of what is: for other strides oneDNN has a loop a thousand times as slow."""
    return matrix if matrix.is_contiguous() or matrix.T.is_contiguous() else matrix.contiguous()


def _image(rows: Tensor) -> Tensor:
    """(N, I) as a channels-last batch of images (n, I, N/n, 1): with fewer than 16 one thread does not reach oneDNN."""
    images = 1 if len(rows) % _IMAGES else _IMAGES
    return rows.reshape(images, -1, 1, rows.shape[-1]).movedim(-1, 1)
