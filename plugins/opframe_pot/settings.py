"""The keys of DPOT (Hao et al., ICML 2024, arXiv 2403.03542) and of MoE-POT (Wang et al., NeurIPS 2025, 2510.25803)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from attrs import field, frozen
from attrs.validators import and_, gt, in_, le

from opframe_pot.patch_keys import NORM_GROUPS, PARTS, PatchBackbone
from opframe_registry import Fields, Published

if TYPE_CHECKING:
    from torch import Tensor, nn

REDUCTION = 16
"""How many times fewer channels the middle of the gate's channel attention has."""


@final
@frozen(kw_only=True)
class DPOT(PatchBackbone):
    """Fourier-attention transformer over patches (Hao et al., 2024)."""

    name: ClassVar[str] = "dpot"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mini": {"width": 128, "depth": 4, "heads": 4, "patch": 8, "mlp_ratio": 1.0, "output_width": 32},
        "tiny": {"width": 512, "depth": 4, "heads": 4, "patch": 8, "mlp_ratio": 1.0, "output_width": 32},
        "small": {"width": 1024, "depth": 6, "heads": 8, "patch": 8, "mlp_ratio": 1.0, "output_width": 32},
        "medium": {"width": 1024, "depth": 12, "heads": 8, "patch": 8, "mlp_ratio": 4.0, "output_width": 32},
        # Of the two published numbers of heads (16 and 8), 16 gives the published 509 million weights.
        "large": {"width": 1536, "depth": 24, "heads": 16, "patch": 8, "mlp_ratio": 4.0, "output_width": 128},
        "huge": {"width": 2048, "depth": 27, "heads": 8, "patch": 8, "mlp_ratio": 4.0, "output_width": 128},
    }

    def build(self, fields: Fields) -> nn.Module:
        """Make the network. Raises ConfigError unless the grid is 2-D or 3-D and made of whole patches."""
        self.check(fields)
        from opframe_pot.dpot import dpot

        return dpot(self, fields)

    @classmethod
    def from_published(cls, arguments: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Published | None:
        """Read a checkpoint of DPOT's authors. Raises ConfigError where it is one that cannot be used here."""
        if not {"patch_embed.proj.0.weight", "blocks.0.filter.w1", "blocks.0.mlp.0.weight"} <= weights.keys():
            return None
        from opframe_pot.published import as_published, read

        found = read(arguments, weights, hidden=len(weights["blocks.0.mlp.0.weight"]))
        return as_published(found, cls(**found.keys), weights)


@final
@frozen(kw_only=True)
class MoEPOT(PatchBackbone):
    """DPOT with a mixture of experts in every block, of which each sample uses a few (Wang et al., 2025).

    In training the prediction has the penalty "balance", summed over blocks: how unevenly the batch uses the experts.
    The published one, the variance, grows with the square of the batch, and the published loss is a sum over samples.
    Where the loss is a mean, a penalty weight of 0.1 over the batch size gives the published proportion.

    The paper takes the softmax of all scores, then the best, and divides by their sum. That is the softmax of the best
    scores alone, the default. `softmax_then_top` does not divide, so that the shares of a sample need not add up to 1.
    """

    name: ClassVar[str] = "moepot"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "router": ("blocks.*.MoE.gating.*",),
        "experts": ("blocks.*.MoE.experts.*", "blocks.*.MoE.shared_experts.*"),
        "features": ("blocks.*.MoE.feature_extractor.*",),
        **PARTS,  # "blocks" has the three above, too
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Not a published size. Its penalty suits a loss that is a mean over samples, and batches of any size.
        "mini": {"width": 128, "depth": 4, "heads": 4, "patch": 8, "mlp_ratio": 1.0, "output_width": 32}
        | {"routed_experts": 8, "chosen_experts": 2, "shared_experts": 1, "balance": "cv_squared"},
        "tiny": {"width": 512, "depth": 4, "heads": 4, "patch": 8, "mlp_ratio": 1.0, "output_width": 32},
        "small": {"width": 1024, "depth": 6, "heads": 8, "patch": 8, "mlp_ratio": 1.0, "output_width": 32},
        "medium": {"width": 1024, "depth": 8, "heads": 8, "patch": 8, "mlp_ratio": 2.0, "output_width": 32},
    }

    routed_experts: int = field(default=16, validator=gt(0), metadata={"help": "experts that a sample may choose from"})
    chosen_experts: int = field(default=4, validator=gt(0), metadata={"help": "experts that each sample chooses"})
    shared_experts: int = field(default=2, validator=gt(0), metadata={"help": "experts that every sample uses"})
    routing: Literal["top_then_softmax", "softmax_then_top"] = field(
        default="top_then_softmax",
        validator=in_(("top_then_softmax", "softmax_then_top")),
        metadata={"help": "shares of the chosen: softmax of their scores, or their part of the softmax of all scores"},
    )
    balance: Literal["variance", "cv_squared"] = field(
        default="variance",
        validator=in_(("variance", "cv_squared")),
        metadata={"help": "penalty: variance of the experts' use, or relative to its mean squared, as in the paper"},
    )
    gate_norm: Literal["batch", "group"] = field(
        default="batch",
        validator=in_(("batch", "group")),
        metadata={"help": "the gate's norm: batch, as published, mixes the samples of a batch; group does not"},
    )
    temperature: float = field(
        default=2.0, validator=gt(0.0), metadata={"help": "what scores are divided by when training begins"}
    )
    temperature_decay: float = field(
        default=0.99,
        validator=and_(gt(0.0), le(1.0)),
        metadata={"help": "what the temperature is multiplied by in every forward pass of training"},
    )
    temperature_end: float = field(
        default=0.5, validator=gt(0.0), metadata={"help": "what the temperature does not fall below"}
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._check_gate()
        if self.chosen_experts > self.routed_experts:
            raise ValueError(
                f"chosen_experts = {self.chosen_experts} of routed_experts = {self.routed_experts} is too many; "
                f"set chosen_experts to {self.routed_experts} or less"
            )
        if self.temperature_end > self.temperature:
            raise ValueError(
                f"temperature = {self.temperature} only falls in training and cannot end at "
                f"temperature_end = {self.temperature_end}"
            )

    def _check_gate(self) -> None:
        if 2 * self.hidden < REDUCTION:
            raise ValueError(
                f"mlp_ratio = {self.mlp_ratio} at width = {self.width} leaves {self.hidden} features; the gate needs "
                f"{REDUCTION // 2} or more"
            )
        if self.gate_norm == "group" and self.hidden % NORM_GROUPS:
            raise ValueError(
                f'gate_norm = "group" needs a multiple of {NORM_GROUPS} features, but mlp_ratio = {self.mlp_ratio} '
                f"at width = {self.width} gives {self.hidden}"
            )

    def build(self, fields: Fields) -> nn.Module:
        """Make the network. Raises ConfigError unless the grid is 2-D or 3-D and made of whole patches."""
        self.check(fields)
        from opframe_pot.moepot import moepot

        return moepot(self, fields)

    def idle(self) -> int:
        """The routed experts that a sample does not choose, with their biases."""
        return self.depth * (self.routed_experts - self.chosen_experts) * (self.hidden + 1) * self.width

    @classmethod
    def from_published(cls, arguments: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Published | None:
        """Read a checkpoint of MoE-POT's authors. Raises ConfigError where it is one that cannot be used here."""
        from opframe_pot.published_moepot import read_published

        return read_published(arguments, weights)
