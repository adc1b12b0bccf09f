"""The routed experts, of which only the chosen ones are computed.

Legend: B batch, X' Y' patches, N their number, I channels in, O channels out, K chosen experts of a sample, of N_r.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

from opframe.layers.dense import Pointwise
from opframe.layers.products import outer_product, product


class Expert(nn.Module):
    """A dense layer and its activation, GELU(W f + b). The mixture's features are made by one, too."""

    def __init__(self, inputs: int, outputs: int, axes: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(Pointwise(inputs, outputs, axes), nn.GELU())

    @property
    def layer(self) -> Pointwise:
        """The dense layer."""
        return cast(Pointwise, self.conv[0])

    def forward(self, f: Tensor) -> Tensor:
        """(B, X', Y', I) -> (B, X', Y', O)."""
        output: Tensor = self.conv(f)
        return output


def weighted_experts(experts: nn.ModuleList, f: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
    """Σ_k share_k · expert_k(f) over the chosen experts: (B, X', Y', I), (B, K), (B, K) -> (B, X', Y', O).

    The indices go to the host once, so that neither way waits for a GPU again.
    """
    layers = [cast(Expert, expert).layer for expert in experts]
    mean: Tensor = _ChosenExperts.apply(  # type: ignore[no-untyped-call]
        f.flatten(1, -2), chosen.cpu(), shares, *(layer.weight for layer in layers), *(layer.bias for layer in layers)
    )
    return mean.view(*f.shape[:-1], -1)


class _ChosenExperts(torch.autograd.Function):
    """Its two operations, each of which a compiler sees as one: which experts are chosen is in the data."""

    @staticmethod
    def forward(ctx: Any, f: Tensor, chosen: Tensor, shares: Tensor, *layers: Tensor) -> Tensor:
        weights, biases = layers[: len(layers) // 2], layers[len(layers) // 2 :]
        mean, inner = torch.ops.opframe.chosen_experts(f, chosen, shares, weights, biases)
        ctx.save_for_backward(f, inner, chosen, shares, *weights)
        return cast(Tensor, mean)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        f, inner, chosen, shares, *weights = ctx.saved_tensors
        of_f, of_shares, *of_layers = torch.ops.opframe.chosen_experts_backward(
            gradient, f, inner, chosen, shares, weights
        )
        return of_f, None, of_shares, *of_layers


_OPERATION = "(Tensor f, Tensor chosen, Tensor shares, Tensor[] weights, Tensor[] biases) -> (Tensor, Tensor)"
_BACKWARD = "(Tensor gradient, Tensor f, Tensor inner, Tensor chosen, Tensor shares, Tensor[] weights) -> Tensor[]"
torch.library.define("opframe::chosen_experts", _OPERATION)
torch.library.define("opframe::chosen_experts_backward", _BACKWARD)


@torch.library.impl("opframe::chosen_experts", "CompositeExplicitAutograd")
def _chosen_experts(
    f: Tensor, chosen: Tensor, shares: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """(B, N, I), (B, K), (B, K) -> the weighted sums, (B, N, O), and what GELU was applied to, (B·K, N, O), by expert.

    The samples that chose an expert are computed together, and all that is done with them while they are in the cache.
    An expert that none chose is not touched. `chosen` is on the host; weights are (O, I, 1, 1), biases (O,). It is
    computed in the precision of `f`, and summed up in that of `shares` if that is higher.
    """
    outputs = len(weights[0])
    inner = f.new_empty(chosen.numel(), f.shape[1], outputs)
    mean = f.new_zeros(*f.shape[:-1], outputs, dtype=torch.promote_types(f.dtype, shares.dtype))
    for group in _groups(chosen, shares):
        weight, bias = weights[group.expert].to(f.dtype).flatten(1), biases[group.expert].to(f.dtype)
        mine = product(group.take(f).flatten(0, 1), weight, bias).view_as(inner[group.rows])
        inner[group.rows] = mine
        group.add(mean, functional.gelu(mine), group.shares)
    return mean.to(f.dtype), inner


@torch.library.impl("opframe::chosen_experts_backward", "CompositeExplicitAutograd")
def _chosen_experts_backward(
    gradient: Tensor, f: Tensor, inner: Tensor, chosen: Tensor, shares: Tensor, weights: Sequence[Tensor]
) -> list[Tensor]:
    """Gradients of f, shares, each weight and each bias. Those of experts that none chose are zeros, not missing.

    So every process of a distributed run has the same ones, and an optimizer treats an expert that was not chosen
    as if all experts were computed.
    """
    of_f, of_shares = torch.zeros_like(f), shares.new_zeros(shares.shape)
    of_weights: dict[int, Tensor] = {}
    of_biases: dict[int, Tensor] = {}
    for group in _groups(chosen, shares):
        weight, sources, by_sum, mine = weights[group.expert], group.take(f), group.take(gradient), inner[group.rows]
        of_shares.view(-1)[group.choices] = (by_sum * functional.gelu(mine)).sum((1, 2), dtype=shares.dtype)
        by_mine = torch.ops.aten.gelu_backward((by_sum * group.shares).to(f.dtype), mine).flatten(0, 1)
        by_sources = product(by_mine, weight.to(f.dtype).flatten(1).T)
        group.add(of_f, by_sources.view_as(sources))
        of_weight = outer_product(by_mine, sources.flatten(0, 1)).contiguous()  # as a compiler is told
        of_weights[group.expert] = of_weight.to(weight.dtype).view_as(weight)
        of_biases[group.expert] = by_mine.sum(0).to(weight.dtype)
    for expert, weight in enumerate(weights):
        if expert not in of_weights:
            of_weights[expert], of_biases[expert] = torch.zeros_like(weight), weight.new_zeros(len(weight))
    order = range(len(weights))
    return [of_f, of_shares, *(of_weights[expert] for expert in order), *(of_biases[expert] for expert in order)]


@frozen(kw_only=True, eq=False)
class _Group:
    """The choices of one expert: as numbers 0 … B·K−1, their places by expert, their samples and their shares."""

    expert: int
    choices: Tensor
    rows: slice
    samples: Tensor
    neighbours: slice | None
    shares: Tensor

    def take(self, x: Tensor) -> Tensor:
        """The group's samples of x. Neighbours need not be copied."""
        return x.index_select(0, self.samples) if self.neighbours is None else x[self.neighbours]

    def add(self, total: Tensor, values: Tensor, shares: Tensor | None = None) -> None:
        """Add values, times shares if there are any, to the group's samples of a total."""
        if self.neighbours is None:
            total.index_add_(0, self.samples, values if shares is None else values * shares)
        elif shares is None:
            total[self.neighbours].add_(values)
        else:
            total[self.neighbours].addcmul_(values, shares)


def _groups(chosen: Tensor, shares: Tensor) -> Iterator[_Group]:
    """The groups of the experts that were chosen, in their order."""
    order = chosen.flatten().argsort(stable=True)
    on_host = (order // chosen.shape[1]).tolist()
    choices = order.to(shares.device)
    samples, shares = choices // chosen.shape[1], shares.flatten()[choices][:, None, None]
    end = 0
    for expert, count in enumerate(chosen.flatten().bincount().tolist()):
        rows = slice(end, end := end + count)
        if count:
            first, last = on_host[rows][0], on_host[rows][-1]
            neighbours = slice(first, last + 1) if last - first == count - 1 else None
            yield _Group(
                expert=expert,
                choices=choices[rows],
                rows=rows,
                samples=samples[rows],
                neighbours=neighbours,
                shares=shares[rows],
            )


@torch.library.register_fake("opframe::chosen_experts")  # type: ignore[untyped-decorator]
def _(
    f: Tensor, chosen: Tensor, shares: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    outputs = len(weights[0])
    return f.new_empty(*f.shape[:-1], outputs), f.new_empty(chosen.numel(), f.shape[1], outputs)


@torch.library.register_fake("opframe::chosen_experts_backward")  # type: ignore[untyped-decorator]
def _(
    gradient: Tensor, f: Tensor, inner: Tensor, chosen: Tensor, shares: Tensor, weights: Sequence[Tensor]
) -> list[Tensor]:
    of_weights = [torch.empty_like(weight) for weight in weights]
    of_biases = [weight.new_empty(len(weight)) for weight in weights]
    return [torch.empty_like(f), shares.new_empty(shares.shape), *of_weights, *of_biases]


@register_flop_formula(torch.ops.opframe.chosen_experts)
def _flops(f: Sequence[int], *_: object, out_shape: Sequence[Sequence[int]], **__: object) -> int:
    """Torch counts FLOPs by operation, and sees one."""
    return 2 * math.prod(out_shape[1]) * f[-1]


@register_flop_formula(torch.ops.opframe.chosen_experts_backward)
def _backward_flops(gradient: Sequence[int], f: Sequence[int], inner: Sequence[int], *_: object, **__: object) -> int:
    return 4 * math.prod(inner) * f[-1]
