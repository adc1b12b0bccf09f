"""A Sobolev objective for opframe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

from attrs import field, frozen
from attrs.validators import ge

from opframe_registry import Component, ConfigError, Fields, LossFunction, Objective, hookimpl


@final
@frozen(kw_only=True)
class RelativeH1(Objective):
    """Relative H¹ error: that of the field and that of its gradient, together.

    √(‖e‖² + λ‖∇e‖²) / √(‖u‖² + λ‖∇u‖²) of every channel of a sample over time and space, e being the error and u the
    truth. The gradient is one of differences between neighbours both of which count, with the longest axis of the
    domain as unit of length. The mean is over channels and samples, the sum over the calls of a roll-out.
    """

    name: ClassVar[str] = "relative_h1"
    gradient: float = field(default=0.01, validator=ge(0.0), metadata={"help": "λ, the weight of the gradient"})
    penalty_weight: float = field(
        default=0.1, validator=ge(0.0), metadata={"help": "weight of the backbone's penalties"}
    )

    def build(self, fields: Fields) -> LossFunction:
        """Make the loss. Raises ConfigError if `frames` is no multiple of the horizon."""
        if self.frames % fields.horizon:
            raise ConfigError(f"[objective] frames = {self.frames} is no multiple of data.horizon = {fields.horizon}")
        from opframe_h1.loss import SobolevLoss

        return SobolevLoss(self, fields.horizon)


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    return [RelativeH1]
