"""A curriculum over training for opframe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

from attrs import field, frozen
from attrs.validators import and_, gt, le

from opframe_registry import Component, ConfigError, Order, Population, Sampler, hookimpl


@final
@frozen(kw_only=True)
class Curriculum(Sampler):
    """First the beginnings of trajectories, then more and more of them (Bengio et al., 2009).

    A dataset is drawn by its weight, then one of its trajectories and one of the windows that are open at this step:
    the first `begin` of them at step 0, all from step `steps` on, and linearly more in between.
    """

    name: ClassVar[str] = "curriculum"
    begin: float = field(
        default=0.25, validator=and_(gt(0.0), le(1.0)), metadata={"help": "fraction of the windows open at first"}
    )
    steps: int = field(default=1000, validator=gt(0), metadata={"help": "step from which all windows are open"})

    def build(self, populations: Sequence[Population]) -> Order:
        """Make the order. Raises ConfigError if a dataset has no window."""
        for index, population in enumerate(populations):
            if not population.starts:
                raise ConfigError(f"datasets[{index}] has no trajectory that is long enough for a window")
        from opframe_curriculum.order import CurriculumOrder

        return CurriculumOrder(self, populations)


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    return [Curriculum]
