"""The routed experts, of which only the chosen ones are computed.

Legend: B batch, X' Y' patches, I channels in, O channels out, K chosen experts of a sample, N_r routed experts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

from opframe.layers.dense import Pointwise, as_image


class Expert(nn.Module):
    """A dense layer and its activation, GELU(W f + b). The mixture's features are made by one, too."""

    def __init__(self, inputs: int, outputs: int, axes: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(Pointwise(inputs, outputs, axes), nn.GELU())

    def forward(self, f: Tensor) -> Tensor:
        """(B, X', Y', I) -> (B, X', Y', O)."""
        output: Tensor = self.conv(f)
        return output


def weighted_experts(experts: nn.ModuleList, f: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
    """Σ_k share_k · expert_k(f) over the chosen experts: (B, X', Y', I), (B, K), (B, K) -> (B, X', Y', O).

    The indices go to the host once, so that neither way waits for a GPU again.
    """
    weights = [expert.get_parameter("conv.0.weight") for expert in experts]
    biases = [expert.get_parameter("conv.0.bias") for expert in experts]
    outputs = functional.gelu(grouped_dense(f, chosen.cpu(), weights, biases))
    mean = shares.to(f.dtype)[:, None] @ outputs.flatten(2)  # (B, 1, K) · (B, K, X'·Y'·O)
    return mean.view(len(f), *outputs.shape[2:])


@torch.library.custom_op("opframe::grouped_dense", mutates_args=())
def grouped_dense(x: Tensor, chosen: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """The dense layers that each sample chose: (B, X', Y', I), (B, K) -> (B, K, X', Y', O).

    The samples that chose a layer are computed together, and a layer that none chose is not touched. Which those are
    is in the data, so that a compiler could not follow; it sees one operation. `chosen` is on the host, weights are
    (O, I, 1, 1) and biases (O,), computed in the precision of `x`.
    """
    samples, choices = chosen.shape
    outputs = x.new_empty(samples * choices, *x.shape[1:-1], len(weights[0]))
    for expert, rows in _groups(chosen):
        rows = rows.to(x.device)
        weight, bias = weights[expert].to(x.dtype), biases[expert].to(x.dtype)
        outputs[rows] = _dense(x[rows // choices], weight.flatten(1), bias)
    return outputs.view(samples, choices, *outputs.shape[1:])


@torch.library.custom_op("opframe::grouped_dense_backward", mutates_args=())
def _grouped_dense_backward(gradient: Tensor, x: Tensor, chosen: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of x, of each weight and of each bias. Those of experts that none chose are zeros, not missing.

    So every process of a distributed run has the same ones, and an optimizer treats an expert that was not chosen
    as if all experts were computed.
    """
    choices = chosen.shape[1]
    gradient = gradient.flatten(0, 1)
    of_x, of_weights = torch.zeros_like(x), [torch.zeros_like(weight) for weight in weights]
    of_biases = [weight.new_zeros(len(weight)) for weight in weights]
    for expert, rows in _groups(chosen):
        rows = rows.to(x.device)
        sources = rows // choices
        weight = weights[expert].to(x.dtype).flatten(1)
        of_sources, of_weight, of_bias = _dense_backward(gradient[rows], x[sources], weight)
        of_x.index_add_(0, sources, of_sources)
        of_weights[expert].copy_(of_weight.view_as(weights[expert]))
        of_biases[expert].copy_(of_bias)
    return [of_x, *of_weights, *of_biases]


def _groups(chosen: Tensor) -> list[tuple[int, Tensor]]:
    """The experts that were chosen, each with the rows of (B·K) that chose it."""
    rows, ends = chosen.flatten().argsort(stable=True), chosen.flatten().bincount().cumsum(0)
    return [(expert, mine) for expert, mine in enumerate(rows.tensor_split(ends[:-1])) if len(mine)]


def _dense(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x · weightᵀ + bias over the last axis, on a CPU as a convolution; see `opframe.layers.dense.dense`."""
    if x.device.type != "cpu":
        return functional.linear(x, weight, bias)
    image = functional.conv2d(as_image(x), weight[:, :, None, None], bias)
    return image.movedim(1, -1).reshape(*x.shape[:-1], len(weight))


def _dense_backward(gradient: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias of `_dense`."""
    if x.device.type != "cpu":
        rows = gradient.flatten(0, -2)
        return gradient @ weight, rows.T @ x.flatten(0, -2), rows.sum(0)
    settings: tuple[Any, ...] = ([len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, True])
    kernel = weight[:, :, None, None]
    image, of_weight, of_bias = torch.ops.aten.convolution_backward(as_image(gradient), as_image(x), kernel, *settings)
    return image.movedim(1, -1).reshape(x.shape), of_weight.flatten(1), of_bias


@grouped_dense.register_fake
def _(x: Tensor, chosen: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    return x.new_empty(*chosen.shape, *x.shape[1:-1], len(weights[0]))


@_grouped_dense_backward.register_fake
def _(gradient: Tensor, x: Tensor, chosen: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    of_weights = [torch.empty_like(weight) for weight in weights]
    return [torch.empty_like(x), *of_weights, *(weight.new_empty(len(weight)) for weight in weights)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, chosen, weights, _ = inputs
    ctx.save_for_backward(x, chosen, *weights)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, list[Tensor], list[Tensor]]:
    x, chosen, *weights = ctx.saved_tensors
    of_x, *rest = _grouped_dense_backward(gradient, x, chosen, weights)
    return of_x, None, rest[: len(weights)], rest[len(weights) :]


grouped_dense.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.opframe.grouped_dense)
def _flops(x: Sequence[int], chosen: Sequence[int], *_: object, out_shape: Sequence[int], **__: object) -> int:
    """Torch counts FLOPs by operation, and sees one."""
    return 2 * math.prod(out_shape) * x[-1]


@register_flop_formula(torch.ops.opframe.grouped_dense_backward)
def _backward_flops(gradient: Sequence[int], x: Sequence[int], *_: object, **__: object) -> int:
    return 4 * math.prod(gradient) * x[-1]
