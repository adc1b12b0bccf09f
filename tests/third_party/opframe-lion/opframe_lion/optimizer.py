"""Lion as a torch optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class LionOptimizer(torch.optim.Optimizer):
    """For every weight tensor w with gradient g:

        w ← w − lr · (sign(β₁ m + (1 − β₁) g) + λ w)
        m ← β₂ m + (1 − β₂) g

    A complex weight is a pair of real ones. Nothing waits for the device.
    """

    def __init__(
        self, params: Sequence[dict[str, Any]], lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change every weight that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for weight in group["params"]:
                    if weight.grad is not None:
                        self._change(weight, weight.grad, group)
        return loss

    def _change(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["exp_avg"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        w, g, m = (_real(item) for item in (weight, gradient, state["exp_avg"]))
        first, second = group["betas"]
        direction = m.lerp(g, 1 - first).sign_()
        w.sub_(direction.add_(w, alpha=group["weight_decay"]), alpha=group["lr"])
        m.lerp_(g, 1 - second)


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
