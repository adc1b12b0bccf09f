"""Noise in gradients: the same in all processes, and in a run that was interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from opframe_registry import Training

if TYPE_CHECKING:
    from opframe_gradient_noise import GradientNoise

PURPOSE = 0x6E6F6973  # so that the numbers are no others that are drawn for this seed and step


class Noise:
    """A callback whose state is the number of steps with noise; a run that it joins later begins with the first."""

    def __init__(self, settings: GradientNoise) -> None:
        self.settings = settings
        self.done = 0

    def deviation(self) -> float:
        """That of the noise of the next step."""
        return float((self.settings.eta / (1 + self.done) ** self.settings.gamma) ** 0.5)

    def after_backward(self, training: Training) -> None:
        """Add noise to the gradients, which are equal in all processes and stay so."""
        deviation, generators = self.deviation(), dict[torch.device, torch.Generator]()
        for weight in training.backbone.parameters():
            if weight.grad is None:
                continue
            gradient = torch.view_as_real(weight.grad) if weight.grad.is_complex() else weight.grad
            device = gradient.device
            if device not in generators:
                generators[device] = _generator(device, training.seed, training.step)
            noise = torch.empty_like(gradient).normal_(0.0, deviation, generator=generators[device])
            gradient.add_(noise)
        self.done += 1
        if training.step % self.settings.log_every == 0:
            training.log({"gradient_noise": deviation})

    def state_dict(self) -> Mapping[str, Any]:
        """How many steps had noise."""
        return {"done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the next one."""
        self.done = int(state["done"])


def _generator(device: torch.device, seed: int, step: int) -> torch.Generator:
    address = np.random.SeedSequence([seed, step, PURPOSE]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(address[0]))
