"""LAMB as a torch optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from opframe_optimizers.by_group import ByGroup


class LambOptimizer(ByGroup):
    """For every weight tensor w with gradient g, and step number t from 1 on (arXiv 1904.00962, algorithm 2):

        m ← β₁ m + (1 − β₁) g               v ← β₂ v + (1 − β₂) g²
        r = m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε) + λ w
        w ← w − lr · φ(‖w‖) / ‖r‖ · r       φ(z) = min(max(z, γ_l), γ_u)

    with the factor 1 in place of φ(‖w‖) / ‖r‖ where either norm is zero, and without the divisions by 1 − βᵗ where
    `debias` is not asked for. A complex weight is a pair of real ones. Of weights that processes share, norms are those
    of the whole. Nothing waits for the device.
    """

    def __init__(
        self,
        params: Sequence[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        bounds: tuple[float, float],
        debias: bool,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"bounds": bounds, "debias": debias})

    def change(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """One step of all of them."""
        for weight in weights:
            if weight.grad is not None:
                self._change(weight, weight.grad, group)

    def _change(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        state["step"] += 1
        number = float(state["step"])  # it is kept on the host
        w, g, m, v = (_real(item) for item in (weight, gradient, state["exp_avg"], state["exp_avg_sq"]))
        first, second = group["betas"]
        m.lerp_(g, 1 - first)
        v.mul_(second).addcmul_(g, g, value=1 - second)
        corrections = (1 - first**number, 1 - second**number) if group["debias"] else (1.0, 1.0)
        update = m / corrections[0] / ((v / corrections[1]).sqrt_() + group["eps"])
        update.add_(w, alpha=group["weight_decay"])
        least, largest = group["bounds"]
        length, size = _norm(update), _norm(w)
        ratio = torch.where((length > 0) & (size > 0), size.clamp(least, largest) / length, 1.0)
        w.sub_(update.mul_(ratio * group["lr"]))


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _norm(tensor: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(tensor)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
