"""The gate of MoE-POT (arXiv 2510.25803): one routing decision for each sample.

Legend: B batch, X' Y' patches, H features, K chosen of N_r routed experts, τ temperature.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from opframe.layers.dense import full_precision, uniform
from opframe_pot.patch_keys import NORM_GROUPS
from opframe_pot.settings import REDUCTION
from opframe_registry import ConfigError

if TYPE_CHECKING:
    from opframe_pot.settings import MoEPOT


class Routing(NamedTuple):
    """The experts of each sample, (B, K), their shares, (B, K), and in training how uneven the batch uses them."""

    chosen: Tensor
    shares: Tensor
    imbalance: Tensor | None


class Gate(nn.Module):
    """Chooses K experts from a sample's mean features. In evaluation mode, also amid training, nothing in it changes.

    Every forward pass in training mode multiplies τ by `temperature_decay`, down to `temperature_end`. Scores and
    shares are computed in float32 under autocast too, because rounding could change the choice.
    """

    temperature: Tensor

    def __init__(self, settings: MoEPOT) -> None:
        super().__init__()
        hidden = settings.hidden
        self._settings = settings
        self.gate = nn.Sequential(
            Dense(hidden, 2 * hidden),
            _norm(settings, 2 * hidden),
            nn.GELU(),
            ChannelAttention(2 * hidden),
            Dense(2 * hidden, hidden),
            _norm(settings, hidden),
            nn.GELU(),
            Dense(hidden, settings.routed_experts),
        )
        self.register_buffer("temperature", torch.tensor(float(settings.temperature)))
        self._used: Tensor | None = None

    def forward(self, f: Tensor) -> Routing:
        """(B, X', Y', H) -> Routing. Raises ConfigError where BatchNorm has but one sample to learn from."""
        if self.training and len(f) == 1 and self._settings.gate_norm == "batch":
            raise ConfigError(
                'moepot: the gate has BatchNorm, which cannot learn from one sample at a time; set gate_norm = "group" '
                "in [backbone], or give every process and every accumulated part of a batch two samples or more"
            )
        with full_precision(f):
            scores = self.scores(f)
            chosen, shares = self._choose(scores)
            imbalance = self._imbalance(scores, chosen, shares) if self.training else None
        if self.training:
            self._used = torch.zeros_like(scores).scatter(1, chosen, shares.detach()).mean(0).detach()
            # Not in place: compiled, the gradients would be computed from the temperature of the next pass.
            colder = self.temperature * self._settings.temperature_decay
            self.temperature = colder.clamp(min=self._settings.temperature_end)
        return Routing(chosen, shares, imbalance)

    def numbers(self) -> dict[str, Tensor]:
        """How the last batch of training used the experts: what part of all shares the most and the least used one had,
        and the entropy of these parts, 1 where all are used alike and 0 where one is alone.
        """
        if self._used is None:
            return {}
        load = self._used / self._used.sum()
        entropy = torch.special.entr(load).sum() / math.log(max(len(load), 2))
        return {"largest_load": load.max(), "smallest_load": load.min(), "entropy": entropy}

    def scores(self, f: Tensor) -> Tensor:
        """Scores over temperature of all experts: (B, X', Y', H) -> (B, N_r)."""
        with full_precision(f):
            mean = f.to(self.temperature.dtype).flatten(1, -2).mean(1)
            scores: Tensor = self.gate(mean)
            return scores / self.temperature

    def _choose(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The K experts with the highest scores and what they count, (B, K) each."""
        experts = self._settings.chosen_experts
        if self._settings.routing == "softmax_then_top":
            shares, chosen = scores.softmax(1).topk(experts, dim=1)
            return chosen, shares
        highest, chosen = scores.topk(experts, dim=1)
        return chosen, highest.softmax(1)

    def _imbalance(self, scores: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
        """Variance over experts of their importance, which is the sum of their shares over the batch.

        As squared coefficient of variation it is divided by the squared mean, and so does not grow with the batch.
        """
        importance = torch.zeros_like(scores).scatter(1, chosen, shares).sum(0)
        variance = importance.var(correction=0)
        return variance if self._settings.balance == "variance" else variance / importance.mean() ** 2


class Dense(nn.Module):
    """A dense layer on rows, whose weight has the shape (O, I, 1, 1) of a 1×1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = uniform((outputs, inputs, 1, 1), inputs)
        self.bias = uniform((outputs,), inputs)

    def forward(self, rows: Tensor) -> Tensor:
        """(B, I) -> (B, O)."""
        return functional.linear(rows, self.weight.flatten(1), self.bias)


class ChannelAttention(nn.Module):
    """Weighs the channels. Mean and maximum over a map of one point are the point, so both branches are one, twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            Dense(channels, channels // REDUCTION), nn.GELU(), Dense(channels // REDUCTION, channels)
        )

    def forward(self, rows: Tensor) -> Tensor:
        """(B, C) -> (B, C)."""
        return rows * torch.sigmoid(2 * self.fc(rows))


def _norm(settings: MoEPOT, channels: int) -> nn.Module:
    return nn.BatchNorm1d(channels) if settings.gate_norm == "batch" else nn.GroupNorm(NORM_GROUPS, channels)
