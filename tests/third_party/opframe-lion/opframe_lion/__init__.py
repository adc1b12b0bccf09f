"""The optimizer Lion for opframe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, final

from attrs import field, frozen
from attrs.validators import and_, ge, lt

from opframe_registry import Component, Optimizer, hookimpl

if TYPE_CHECKING:
    import torch


@final
@frozen(kw_only=True)
class Lion(Optimizer):
    """Steps of one length in every weight, in the direction of a mean gradient (Chen et al., 2023).

    Program 2 of arXiv 2302.06675.
    """

    name: ClassVar[str] = "lion"
    beta1: float = field(default=0.9, validator=and_(ge(0.0), lt(1.0)), metadata={"help": "share of the mean"})
    beta2: float = field(default=0.99, validator=and_(ge(0.0), lt(1.0)), metadata={"help": "decay of the mean"})
    weight_decay: float = field(default=0.01, validator=ge(0.0), metadata={"help": "pull of every weight to zero"})

    def build(self, parameters: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        """Make the torch optimizer."""
        from opframe_lion.optimizer import LionOptimizer

        betas = (self.beta1, self.beta2)
        return LionOptimizer(parameters, lr=self.learning_rate, betas=betas, weight_decay=self.weight_decay)


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    return [Lion]
