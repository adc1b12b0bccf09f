"""Muon as a torch optimizer, for the weights that are matrices; the others go by AdamW."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.adamw import adamw

from opframe_optimizers.by_group import ByGroup

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5
_TINY = 1e-7


class MuonOptimizer(ByGroup):
    """For every matrix W (O, I) with gradient G (K. Jordan et al., 2024):

        B ← μ B + (1 − μ) G                O = NS(μ B + (1 − μ) G)
        W ← (1 − lr · λ) W − lr · s · O

    NS brings all singular values near 1, by five rounds of X ← a X + (b A + c A²) X with A = X Xᵀ, in bfloat16. s is
    0.2 √max(O, I), by which a step is as large as one of AdamW (J. Liu et al., 2025), or √max(1, O / I). A 1×1
    convolution is a matrix; all other weights, complex ones among them, are changed as by torch's AdamW. (torch's own
    Muon takes nothing but matrices, and no shards.)
    """

    def __init__(
        self,
        params: Sequence[dict[str, Any]],
        lr: float,
        momentum: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        scale: Literal["rms", "shape"],
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"scale": scale})

    def change(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """One step of all of them."""
        for weight in weights:
            if is_matrix(weight):
                self._change(weight, group)
        self._change_others([weight for weight in weights if not is_matrix(weight)], group)

    def _change(self, weight: Tensor, group: dict[str, Any]) -> None:
        state, momentum = self.state[weight], group["momentum"]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        gradient: Any = weight.grad
        state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        update = _orthogonal(gradient.lerp(state["momentum_buffer"], momentum))
        rows, columns = len(weight), weight.numel() // len(weight)
        scale = 0.2 * max(rows, columns) ** 0.5 if group["scale"] == "rms" else max(1.0, rows / columns) ** 0.5
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_(update * (group["lr"] * scale))

    def _change_others(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        for weight in weights:
            if not self.state[weight]:
                zeros = [torch.zeros_like(weight, memory_format=torch.preserve_format) for _ in range(2)]
                self.state[weight] |= {"step": torch.zeros(()), "exp_avg": zeros[0], "exp_avg_sq": zeros[1]}
        states = [self.state[weight] for weight in weights]
        first, second = group["betas"]
        adamw(
            weights,
            [weight.grad for weight in weights if weight.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=first,
            beta2=second,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
            has_complex=any(weight.is_complex() for weight in weights),
        )


def is_matrix(weight: Tensor) -> bool:
    """Whether a weight is a real matrix (O, I), or (O, I, 1, …) as of a convolution of one point."""
    return not weight.is_complex() and weight.ndim >= 2 and set(weight.shape[2:]) <= {1} and min(weight.shape[:2]) > 1


def _orthogonal(update: Tensor) -> Tensor:
    """A matrix whose singular vectors are those of the update, and whose singular values are near 1.

    Of a weight that processes share it is made of the whole.
    """
    whole = update.full_tensor() if isinstance(update, DTensor) else update
    found = _newton_schulz(whole.flatten(1)).view_as(whole).to(whole.dtype)
    if isinstance(update, DTensor):
        return distribute_tensor(found, update.device_mesh, update.placements, src_data_rank=None)
    return found


def _newton_schulz(matrix: Tensor) -> Tensor:
    x = matrix.bfloat16()
    tall = len(x) > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm().clamp(min=_TINY)
    a, b, c = _COEFFICIENTS
    for _ in range(_ROUNDS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
