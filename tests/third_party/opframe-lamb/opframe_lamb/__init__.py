"""The optimizer LAMB for opframe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, final

from attrs import field, frozen
from attrs.validators import and_, ge, gt, lt

from opframe_registry import Component, Optimizer, hookimpl

if TYPE_CHECKING:
    import torch


@final
@frozen(kw_only=True)
class LAMB(Optimizer):
    """Adam whose step in every weight tensor is as long as the tensor is large (You et al., 2020).

    Algorithm 2 of arXiv 1904.00962, with its bias corrections.
    """

    name: ClassVar[str] = "lamb"
    beta1: float = field(default=0.9, validator=and_(ge(0.0), lt(1.0)), metadata={"help": "decay of the mean gradient"})
    beta2: float = field(default=0.999, validator=and_(ge(0.0), lt(1.0)), metadata={"help": "decay of its square"})
    epsilon: float = field(default=1e-6, validator=gt(0.0), metadata={"help": "added to the root of the square"})
    weight_decay: float = field(default=0.01, validator=ge(0.0), metadata={"help": "pull of every weight to zero"})
    largest: float = field(
        default=10.0, validator=gt(0.0), metadata={"help": "norm of a tensor above which steps grow no more"}
    )

    def build(self, parameters: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        """Make the torch optimizer."""
        from opframe_lamb.optimizer import LAMBOptimizer

        return LAMBOptimizer(
            parameters,
            lr=self.learning_rate,
            betas=(self.beta1, self.beta2),
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            largest=self.largest,
        )


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    return [LAMB]
