"""The routed experts, of which only the chosen ones are computed.

Legend: B batch, X' Y' patches, N their number, I channels in, O channels out, K chosen experts of a sample, of N_r.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

from opframe.layers.dense import Pointwise
from opframe.layers.products import outer_product, product


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
    mean: Tensor = chosen_experts(f.flatten(1, -2), chosen.cpu(), shares, weights, biases)[0]
    return mean.view(*f.shape[:-1], -1)


@torch.library.custom_op("opframe::chosen_experts", mutates_args=())
def chosen_experts(
    f: Tensor, chosen: Tensor, shares: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """(B, N, I), (B, K), (B, K) -> the weighted sums, (B, N, O), and what GELU was applied to, (B·K, N, O), by expert.

    The samples that chose an expert are computed together, and all that is done with them while they are in the cache.
    An expert that none chose is not touched. Which those are is in the data, so that a compiler could not follow; it
    sees one operation. `chosen` is on the host; weights are (O, I, 1, 1), biases (O,). It is computed in the precision
    of `f`, and summed up in that of `shares` if that is higher.
    """
    outputs = len(weights[0])
    inner = f.new_empty(chosen.numel(), f.shape[1], outputs)
    mean = f.new_zeros(*f.shape[:-1], outputs, dtype=torch.promote_types(f.dtype, shares.dtype))
    for expert, rows, samples, share in _groups(chosen, shares):
        weight, bias = weights[expert].to(f.dtype).flatten(1), biases[expert].to(f.dtype)
        mine = product(f[samples].flatten(0, 1), weight, bias).view_as(inner[rows])
        inner[rows] = mine
        mean.index_add_(0, samples, functional.gelu(mine) * share)
    return mean.to(f.dtype), inner


@torch.library.custom_op("opframe::chosen_experts_backward", mutates_args=())
def _chosen_experts_backward(
    gradient: Tensor, f: Tensor, inner: Tensor, chosen: Tensor, shares: Tensor, weights: Sequence[Tensor]
) -> list[Tensor]:
    """Gradients of f, shares, each weight and each bias. Those of experts that none chose are zeros, not missing.

    So every process of a distributed run has the same ones, and an optimizer treats an expert that was not chosen
    as if all experts were computed.
    """
    of_f, of_shares = torch.zeros_like(f), shares.new_empty(chosen.numel())
    of_weights = [torch.zeros_like(weight) for weight in weights]
    of_biases = [weight.new_zeros(len(weight)) for weight in weights]
    for expert, rows, samples, share in _groups(chosen, shares):
        by_sum, mine = gradient[samples], inner[rows]
        of_shares[rows] = (by_sum * functional.gelu(mine)).sum((1, 2), dtype=shares.dtype)
        by_mine = torch.ops.aten.gelu_backward((by_sum * share).to(f.dtype), mine).flatten(0, 1)
        sources = f[samples]
        by_sources = product(by_mine, weights[expert].to(f.dtype).flatten(1).T)
        of_f.index_add_(0, samples, by_sources.view_as(sources))
        of_weights[expert].copy_(outer_product(by_mine, sources.flatten(0, 1)).view_as(weights[expert]))
        of_biases[expert].copy_(by_mine.sum(0))
    order = _by_expert(chosen).to(shares.device)
    return [of_f, torch.empty_like(of_shares).index_copy_(0, order, of_shares).view_as(shares), *of_weights, *of_biases]


def _by_expert(chosen: Tensor) -> Tensor:
    """The numbers 0 … B·K−1 of all choices in the order of the experts."""
    return chosen.flatten().argsort(stable=True)


def _groups(chosen: Tensor, shares: Tensor) -> Iterator[tuple[int, slice, Tensor, Tensor]]:
    """Experts that were chosen: the number of each, its rows by expert, the samples that chose it, and their shares."""
    order = _by_expert(chosen).to(shares.device)
    samples, by_expert = order // chosen.shape[1], shares.flatten()[order][:, None, None]
    first = 0
    for expert, count in enumerate(chosen.flatten().bincount().tolist()):
        rows = slice(first, first + count)
        if count:
            yield expert, rows, samples[rows], by_expert[rows]
        first += count


@chosen_experts.register_fake
def _(
    f: Tensor, chosen: Tensor, shares: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    outputs = len(weights[0])
    return f.new_empty(*f.shape[:-1], outputs), f.new_empty(chosen.numel(), f.shape[1], outputs)


@_chosen_experts_backward.register_fake
def _(
    gradient: Tensor, f: Tensor, inner: Tensor, chosen: Tensor, shares: Tensor, weights: Sequence[Tensor]
) -> list[Tensor]:
    of_weights = [torch.empty_like(weight) for weight in weights]
    of_biases = [weight.new_empty(len(weight)) for weight in weights]
    return [torch.empty_like(f), torch.empty_like(shares), *of_weights, *of_biases]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    f, chosen, shares, weights, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(f, output[1], chosen, shares, *weights)


def _backward(ctx: Any, gradient: Tensor | None, _: None) -> tuple[Any, ...]:
    f, inner, chosen, shares, *weights = ctx.saved_tensors
    if gradient is None:  # as when zeros would be the gradient
        return None, None, None, [None] * len(weights), [None] * len(weights)
    of_f, of_shares, *rest = _chosen_experts_backward(gradient, f, inner, chosen, shares, weights)
    return of_f, None, of_shares, rest[: len(weights)], rest[len(weights) :]


chosen_experts.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.opframe.chosen_experts)
def _flops(f: Sequence[int], *_: object, out_shape: Sequence[Sequence[int]], **__: object) -> int:
    """Torch counts FLOPs by operation, and sees one."""
    return 2 * math.prod(out_shape[1]) * f[-1]


@register_flop_formula(torch.ops.opframe.chosen_experts_backward)
def _backward_flops(gradient: Sequence[int], f: Sequence[int], inner: Sequence[int], *_: object, **__: object) -> int:
    return 4 * math.prod(inner) * f[-1]
