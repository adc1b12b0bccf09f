"""Samplers: which windows of which datasets make up a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

from attrs import frozen

from opframe_registry import Component, ConfigError, Order, Population, Sampler, hookimpl


@final
@frozen(kw_only=True)
class Balanced(Sampler):
    """Datasets by weight, whatever their size; then trajectory and start uniformly (Hao et al., 2024).

    Dataset k is drawn with probability w_k / Σw. Draws are independent, with replacement.
    """

    name: ClassVar[str] = "balanced"

    def build(self, populations: Sequence[Population]) -> Order:
        """Make the order. Raises ConfigError if a dataset has no window."""
        from opframe_sampling.order import BalancedOrder

        return BalancedOrder(_with_windows(populations))


@final
@frozen(kw_only=True)
class Proportional(Sampler):
    """Every window of every dataset equally likely; weights are not used."""

    name: ClassVar[str] = "proportional"

    def build(self, populations: Sequence[Population]) -> Order:
        """Make the order. Raises ConfigError if a dataset has no window."""
        from opframe_sampling.order import ProportionalOrder

        return ProportionalOrder(_with_windows(populations))


def _with_windows(populations: Sequence[Population]) -> tuple[Population, ...]:
    if not populations:
        raise ConfigError("datasets: at least one is needed to train on")
    for index, population in enumerate(populations):
        if not population.starts:
            raise ConfigError(
                f"datasets[{index}] has no window to train on: none of its training trajectories has the "
                "data.history + objective.frames frames that a window takes"
            )
    return tuple(populations)


@hookimpl
def opframe_components() -> list[type[Component]]:
    """The components of this plugin."""
    return [Balanced, Proportional]
