"""What an optimizer of our own has beside its rule."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class ByGroup(torch.optim.Optimizer):
    """Changes the weights of one parameter group after the other, by a rule."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change every weight that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                self.change([weight for weight in group["params"] if weight.grad is not None], group)
        return loss

    @abstractmethod
    def change(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Change weights of a group, all of which have a gradient."""
