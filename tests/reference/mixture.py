"""The mixture of experts of MoE-POT (arXiv 2510.25803) with every expert evaluated, as in the published code.

Legend: B batch, X' Y' patches, D width, H features, N_r routed experts.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from opframe_pot import MoEPOT


class Mixture(nn.Module):
    """Shared experts, and all routed ones, times what the gate gives them: (B, D, X', Y') -> the same, penalties."""

    def __init__(self, settings: MoEPOT) -> None:
        super().__init__()
        width, hidden = settings.width, settings.hidden
        self.feature_extractor = Expert(width, hidden)
        self.shared_experts = nn.ModuleList(Expert(hidden, width) for _ in range(settings.shared_experts))
        self.experts = nn.ModuleList(Expert(hidden, width) for _ in range(settings.routed_experts))
        self.gating = Gate(settings)

    def forward(self, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The penalty is the variance of what the experts are given in a batch."""
        f = self.feature_extractor(z)
        shares: Tensor = self.gating(f)  # (B, N_r), most of them zero
        mixed = torch.stack([expert(f) for expert in self.shared_experts]).mean(0)
        mixed = mixed + every_expert(self.experts, f, shares)
        return mixed, [shares.sum(0).var(correction=0)] if self.training else []


def every_expert(experts: nn.ModuleList, f: Tensor, shares: Tensor) -> Tensor:
    """Σ_i share_i · expert_i(f) with every expert computed: (B, H, X', Y'), (B, N_r) -> (B, D, X', Y')."""
    total = torch.zeros((), device=f.device)
    for index, expert in enumerate(experts):
        total = total + expert(f) * shares[:, index, None, None, None]
    return total


class Expert(nn.Module):
    """A 1×1 convolution and GELU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.GELU())

    def forward(self, f: Tensor) -> Tensor:
        """(B, I, X', Y') -> (B, O, X', Y')."""
        return cast(Tensor, self.conv(f))


class Gate(nn.Module):
    """Shares of the routed experts, one decision for each sample: (B, H, X', Y') -> (B, N_r)."""

    def __init__(self, settings: MoEPOT) -> None:
        super().__init__()
        hidden, self.settings = settings.hidden, settings
        self.gate = nn.Sequential(
            nn.Conv2d(hidden, 2 * hidden, 1),
            nn.BatchNorm2d(2 * hidden),
            nn.GELU(),
            ChannelAttention(2 * hidden),
            nn.Conv2d(2 * hidden, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.GELU(),
            nn.Conv2d(hidden, settings.routed_experts, 1),
        )
        self.register_buffer("temperature", torch.tensor(float(settings.temperature)))
        self.temperature: Tensor

    def forward(self, f: Tensor) -> Tensor:
        """The temperature falls with every pass in training."""
        scores = self.gate(functional.adaptive_avg_pool2d(f, 1)).flatten(1)
        highest, chosen = scores.topk(self.settings.chosen_experts, dim=1)
        shares = (highest / self.temperature).softmax(1)
        if self.training:
            colder = self.temperature * self.settings.temperature_decay
            self.temperature = colder.clamp(min=self.settings.temperature_end)
        return torch.zeros_like(scores).scatter(1, chosen, shares)


class ChannelAttention(nn.Module):
    """Channels weighed by what their mean and their maximum say: (B, C, X, Y) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Conv2d(channels, channels // 16, 1), nn.GELU(), nn.Conv2d(channels // 16, channels, 1)
        )

    def forward(self, z: Tensor) -> Tensor:
        """Weigh the channels."""
        mean, most = functional.adaptive_avg_pool2d(z, 1), functional.adaptive_max_pool2d(z, 1)
        return z * torch.sigmoid(self.fc(mean) + self.fc(most))
