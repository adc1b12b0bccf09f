"""The network of MoE-POT (Wang et al., NeurIPS 2025, arXiv 2510.25803): DPOT with a mixture of experts in each block.

Legend: B batch, X' Y' patches, D width, H features, K chosen of N_r routed experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from opframe.layers.dense import TokenNorm
from opframe_pot.attention import FourierAttention
from opframe_pot.experts import Expert, weighted_experts
from opframe_pot.gate import Gate
from opframe_pot.patch_keys import NORM_GROUPS
from opframe_pot.patch_transformer import Mixed, PatchTransformer, patch_grid
from opframe_registry import Fields

if TYPE_CHECKING:
    from opframe_pot.settings import MoEPOT


def moepot(settings: MoEPOT, fields: Fields) -> PatchTransformer:
    """The network, with fresh weights."""
    patches = patch_grid(settings, fields)
    return PatchTransformer(settings, fields, [Block(settings, patches) for _ in range(settings.depth)])


class Block(nn.Module):
    """Fourier attention, then a mixture of experts on each token. The inner skip carries the normalised tokens."""

    def __init__(self, settings: MoEPOT, patches: Sequence[int]) -> None:
        super().__init__()
        self.norm1 = TokenNorm(NORM_GROUPS, settings.width)
        self.filter = FourierAttention(settings.width, settings.heads, patches, settings.modes)
        self.norm2 = TokenNorm(NORM_GROUPS, settings.width)
        self.MoE = Mixture(settings, len(patches))

    def forward(self, z: Tensor) -> Mixed:
        """(B, X', Y', D) -> the same."""
        normal = self.norm1(z)
        mixed: Mixed = self.MoE(self.norm2(normal + self.filter(normal)))
        return Mixed(tokens=mixed.tokens + z, penalties=mixed.penalties)


class Mixture(nn.Module):
    """The mean of the shared experts, and the weighted sum of the routed ones that the gate chooses for a sample."""

    def __init__(self, settings: MoEPOT, axes: int) -> None:
        super().__init__()
        width, hidden = settings.width, settings.hidden
        self.feature_extractor = Expert(width, hidden, axes)
        self.shared_experts = nn.ModuleList(Expert(hidden, width, axes) for _ in range(settings.shared_experts))
        self.experts = nn.ModuleList(Expert(hidden, width, axes) for _ in range(settings.routed_experts))
        self.gating = Gate(settings)

    def forward(self, z: Tensor) -> Mixed:
        """(B, X', Y', D) -> the same. In training mode of the gate there is the penalty "balance"."""
        f = self.feature_extractor(z)
        routing = self.gating(f)
        shared = reduce(torch.add, [expert(f) for expert in self.shared_experts]) / len(self.shared_experts)
        tokens = shared + weighted_experts(self.experts, f, routing.chosen, routing.shares)
        return Mixed(tokens=tokens, penalties={} if routing.imbalance is None else {"balance": routing.imbalance})


@torch.no_grad()
def router_scores(network: nn.Module, u: Tensor) -> Tensor:
    """How each sample is routed in each block: (B, T, C, X, Y) -> (B, depth, N_r), which add up to 1 over N_r.

    They are the softmax of all scores, of experts that are not chosen, too. Their mean over the samples of a dataset
    tells to which dataset a new sample belongs (appendix B.4). The network is to be in evaluation mode.
    """
    scores: list[Tensor] = []

    def read(gate: Gate, inputs: tuple[Tensor], _: object) -> None:
        scores.append(gate.scores(*inputs).softmax(1))

    gates = [module for module in network.modules() if isinstance(module, Gate)]
    handles = [gate.register_forward_hook(read) for gate in gates]
    try:
        network(u)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(scores, dim=1)
