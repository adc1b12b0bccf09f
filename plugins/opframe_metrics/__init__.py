"""How far predictions are from the truth: relative L2 errors, and root mean squares."""

from __future__ import annotations

from typing import ClassVar, final

from attrs import frozen

from opframe_registry import Component, Fields, Metric, MetricFunction, hookimpl


@final
@frozen(kw_only=True)
class RelativeL2(Metric):
    """Relative L2 error of each channel, averaged over channels (L2RE; Hao et al., 2024).

    ‖prediction − truth‖₂ / (‖truth‖₂ + 1e-8) of every channel that is predicted, over the points that count. The value
    `relative_l2` is that of each frame, `relative_l2_rollout` that of all predicted frames together.
    """

    name: ClassVar[str] = "relative_l2"

    def build(self, fields: Fields) -> MetricFunction:
        """The function `relative_l2`."""
        from opframe_metrics.errors import relative_l2

        return relative_l2


@final
@frozen(kw_only=True)
class RootMeanSquare(Metric):
    """Root mean square error of each frame in the data's own units, averaged over channels (Takamoto et al., 2022)."""

    name: ClassVar[str] = "rmse"

    def build(self, fields: Fields) -> MetricFunction:
        """The function `rmse`."""
        from opframe_metrics.errors import rmse

        return rmse


@hookimpl
def opframe_components() -> list[type[Component]]:
    """The components of this plugin."""
    return [RelativeL2, RootMeanSquare]
