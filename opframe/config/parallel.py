"""How the processes that train together share a network."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen
from attrs.validators import gt, optional

Strategy = Literal["ddp", "fsdp", "hybrid"]


@frozen(kw_only=True)
class Parallel:
    """What every process holds of the network, and what it computes twice to save memory."""

    strategy: Strategy = field(
        default="ddp",
        metadata={
            "help": "ddp: every process has the whole network; fsdp: its weights, gradients and optimizer state are "
            "shared by all; hybrid: they are shared by the processes of a machine, and every machine has them all"
        },
    )
    shard: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "hybrid: processes that share one network (default: those of a machine)"},
    )
    reduce: Literal["float32", "bfloat16"] = field(
        default="float32", metadata={"help": "fsdp and hybrid: precision in which gradients are summed"}
    )
    cpu_offload: bool = field(
        default=False,
        metadata={"help": "fsdp and hybrid: keep weights and optimizer state in main memory and update them there"},
    )
    checkpoint_activations: bool = field(
        default=False,
        metadata={"help": "keep the inputs of the network's blocks alone, and compute the rest again for gradients"},
    )

    def __attrs_post_init__(self) -> None:
        if self.shard is not None and self.strategy != "hybrid":
            raise ValueError('shard is for strategy = "hybrid"; remove it or set that')
        used = "reduce" if self.reduce != "float32" else "cpu_offload" if self.cpu_offload else None
        if used is not None and self.strategy == "ddp":
            raise ValueError(f'{used} is for strategy = "fsdp" or "hybrid"; remove it or set one of them')
