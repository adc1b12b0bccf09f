"""Published checkpoints of MoE-POT: what is in them beside what a patch transformer has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from opframe_pot.published import as_published, read
from opframe_pot.settings import MoEPOT
from opframe_registry import Published

_MIXTURE = "blocks.0.MoE."
_CHOSEN = 4
_TEMPERATURE = 0.5


def read_published(arguments: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Published | None:
    """What `Backbone.from_published` answers. Raises ConfigError for a file of MoE-POT that cannot be used here."""
    features = weights.get(f"{_MIXTURE}feature_extractor.conv.0.weight")
    if features is None:
        return None
    found = read(arguments, weights, hidden=len(features))
    experts: dict[str, Any] = {
        "routed_experts": _count(weights, "experts"),
        "shared_experts": _count(weights, "shared_experts"),
        "chosen_experts": min(_CHOSEN, _count(weights, "experts")),
        "gate_norm": "batch" if f"{_MIXTURE}gating.gate.1.running_mean" in weights else "group",
    }
    backbone = MoEPOT(**found.keys, **experts)
    published = as_published(found, backbone, weights)
    names = [f"blocks.{index}.MoE.gating.temperature" for index in range(backbone.depth)]
    missing = [name for name in names if name not in weights]
    return evolve(
        published,
        weights={**published.weights, **{name: torch.tensor(_TEMPERATURE) for name in missing}},
        assumed={
            **published.assumed,
            "chosen_experts": f"{backbone.chosen_experts}, the published default",
            **dict.fromkeys(missing, f"{_TEMPERATURE}, where training ends"),
        },
    )


def _count(weights: Mapping[str, Tensor], kind: str) -> int:
    """How many experts of a kind the first block has."""
    prefix = f"{_MIXTURE}{kind}."
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})
