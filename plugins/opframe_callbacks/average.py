"""The exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from opframe_registry import Training


class Average:
    """Averages the weights of every step. Where processes have shards of a network, each averages its own."""

    def __init__(self, decay: float, evaluate: bool) -> None:
        self._decay, self._evaluate = decay, evaluate
        self._steps = 0
        self._averages: dict[str, Tensor] = {}

    def before_training(self, training: Training) -> None:
        """Begin with the weights as they are, or go on where the state says."""
        loaded = self._averages
        self._averages = {
            name: _like(loaded[name], weight) if name in loaded else weight.detach().clone()
            for name, weight in _trained(training.backbone)
        }

    @torch.no_grad()
    def after_step(self, training: Training) -> None:
        """Move the averages towards the weights."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        weights = dict(_trained(training.backbone))
        torch._foreach_lerp_(list(self._averages.values()), [weights[name] for name in self._averages], 1 - decay)

    def before_evaluation(self, training: Training) -> None:
        """Put the averages in place of the weights."""
        if self._evaluate:
            self._exchange(training.backbone)

    def after_evaluation(self, training: Training, scores: Mapping[str, float]) -> None:
        """Put the weights back."""
        if self._evaluate:
            self._exchange(training.backbone)

    def after_training(self, training: Training) -> None:
        """Leave the averages to the report."""
        if self._evaluate and self._steps:
            self._exchange(training.backbone)
            training.say(f"evaluated is the average of the weights over steps (ema, decay {self._decay:g})")

    def state_dict(self) -> dict[str, Any]:
        """The averages, whole, and how many steps they are of."""
        whole = {
            name: average.full_tensor() if isinstance(average, DTensor) else average
            for name, average in self._averages.items()
        }
        return {"steps": self._steps, "weights" if self._evaluate else "averages": whole}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on averaging."""
        self._steps = int(state["steps"])
        self._averages = dict(state.get("weights", state.get("averages", {})))

    @torch.no_grad()
    def _exchange(self, backbone: nn.Module) -> None:
        for name, weight in _trained(backbone):
            kept = weight.detach().clone()
            weight.copy_(self._averages[name])
            self._averages[name].copy_(kept)


def _trained(backbone: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The weights that change."""
    return [(name, weight) for name, weight in backbone.named_parameters() if weight.requires_grad]


def _like(average: Tensor, weight: Tensor) -> Tensor:
    """An average that was loaded, where its weight is: on its device, and as its share."""
    there = average.to(weight.device, weight.dtype, copy=True)
    if isinstance(weight, DTensor):
        return distribute_tensor(there, weight.device_mesh, weight.placements)
    return there
