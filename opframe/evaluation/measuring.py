"""What metrics say of forecasts, kept for every trajectory and brought together from all processes."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from attrs import define, field
from torch import Tensor

from opframe.config.building import CheckedMetric
from opframe.evaluation.examples import Examples
from opframe.evaluation.scores import Measure, Value
from opframe.processes import Processes
from opframe_registry import ConfigError, Metadata, PluginError
from opframe_registry.component import summary

Layout = dict[str, tuple[Measure, ...]]
"""The measures of each forecast."""


def measured(
    metrics: Sequence[CheckedMetric], prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata
) -> dict[Measure, Tensor]:
    """All values of a batch, (B,) or (B, T). Raises ConfigError where two metrics have a value of one name."""
    found: dict[Measure, Tensor] = {}
    for metric in metrics:
        for name, value in metric(prediction, truth, mask, metadata).items():
            owner = next((measure.metric for measure in found if measure.name == name), None)
            if owner is not None:
                raise ConfigError(
                    f"metrics: '{owner}' and '{metric.component.name}' both measure '{name}'; leave one of them out"
                )
            found[_measure(metric, name, value)] = value
    return found


def _measure(metric: CheckedMetric, name: str, value: Tensor) -> Measure:
    component = metric.component
    return Measure(
        name=name,
        metric=component.name,
        better=component.better,
        per_frame=value.ndim == 2,
        help=summary(type(component)),
    )


@define
class Gathering:
    """The values of `rows` trajectories, of which each process knows its own, over at most `frames` frames.

    They are kept in float64, so that their means do not depend on who has measured what.
    """

    rows: int
    frames: int
    _values: dict[str, dict[Measure, Tensor]] = field(factory=dict, init=False)

    def add(
        self,
        forecast: str,
        rows: Sequence[int],
        examples: Examples,
        prediction: Tensor,
        values: dict[Measure, Tensor],
    ) -> None:
        """Keep what was measured of some rows. Frames beyond the end of a trajectory have no value.

        NaN says that there is nothing to measure, unless the prediction is not finite: that is as bad as can be.
        """
        mine = self._values.setdefault(forecast, {})
        there = examples.there()
        for measure, value in values.items():
            found = value.detach().double().cpu()
            if found.isnan().any():
                found = _judged(measure, found, prediction, there)
            if measure not in mine:
                mine[measure] = torch.zeros(self.rows, self.frames if measure.per_frame else 1, dtype=torch.float64)
            if measure.per_frame and there is not None:
                found = found.masked_fill(~there.cpu(), torch.nan)
            table = mine[measure]
            table[list(rows)] = torch.nan
            table[list(rows), : found.shape[1] if measure.per_frame else 1] = found.view(len(rows), -1)

    def gathered(self, processes: Processes) -> dict[str, dict[Measure, Value]]:
        """The means over all trajectories, of all processes. Raises PluginError where these measure other things."""
        mine = {forecast: tuple(values) for forecast, values in self._values.items()}
        layout: Layout = processes.from_leader(mine)
        if mine and mine != layout:
            raise PluginError(f"metrics measure {_names(mine)} in one process, and {_names(layout)} in another")
        columns = {
            (forecast, measure): self._column(forecast, measure)
            for forecast, measures in layout.items()
            for measure in measures
        }
        together = processes.sum(torch.cat([*columns.values()], 1)).cpu()
        parts = torch.split(together, [column.shape[1] for column in columns.values()], 1)
        result: dict[str, dict[Measure, Value]] = {forecast: {} for forecast in layout}
        for (forecast, measure), table in zip(columns, parts, strict=True):
            result[forecast][measure] = _mean(measure, table)
        return result

    def _column(self, forecast: str, measure: Measure) -> Tensor:
        known = self._values.get(forecast, {})
        if measure in known:
            return known[measure]
        return torch.zeros(self.rows, self.frames if measure.per_frame else 1, dtype=torch.float64)


def _judged(measure: Measure, found: Tensor, prediction: Tensor, there: Tensor | None) -> Tensor:
    """Values (B,) or (B, T), with the worst there is in place of NaN where the prediction is not finite."""
    broken = ~prediction.isfinite().flatten(2).all(2)
    broken = (broken if there is None else broken & there).cpu()
    broken = broken if measure.per_frame else broken.any(1)
    return found.masked_fill(found.isnan() & broken, -inf if measure.better == "higher" else inf)


def _mean(measure: Measure, table: Tensor) -> Value:
    """The mean over trajectories (rows) and their frames; NaN counts for nothing."""
    each = table.nanmean(1)
    frames = tuple(table.nanmean(0).tolist()) if measure.per_frame else None
    return Value(mean=each.nanmean().item(), frames=frames, trajectories=tuple(each.tolist()))


def _names(layout: Layout) -> str:
    return ", ".join(dict.fromkeys(measure.name for measures in layout.values() for measure in measures))
