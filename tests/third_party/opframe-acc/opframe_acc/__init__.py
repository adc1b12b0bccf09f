"""Anomaly correlation for opframe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, final

from attrs import field, frozen

from opframe_registry import Component, Fields, Location, Metric, MetricFunction, hookimpl


@final
@frozen(kw_only=True)
class AnomalyCorrelation(Metric):
    """Anomaly correlation: how alike prediction and truth depart from what is usual, from −1 to 1.

    Σ p a / √(Σ p² Σ a²) over the points that count, p and a being the departures of prediction and truth. What is
    usual is the truth's mean over time in each trajectory, or what a file says. The mean is over channels.
    """

    name: ClassVar[str] = "anomaly_correlation"
    better: ClassVar[Literal["lower", "higher"]] = "higher"
    climatology: Mapping[str, Location] = field(
        factory=dict,
        metadata={"help": ".npy file (*grid), in the data's units, for each channel (default: each trajectory's mean)"},
    )

    def build(self, fields: Fields) -> MetricFunction:
        """Make the function. Raises DataError where a file cannot be read."""
        from opframe_acc.correlation import Correlation, read_climatology

        return Correlation(read_climatology(self.climatology))


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    return [AnomalyCorrelation]
