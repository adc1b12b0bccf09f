"""What an evaluation finds: the values of all metrics, by dataset and forecast."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from math import inf, isnan
from typing import Any, Literal

import attrs
from attrs import field, frozen

from opframe.evaluation.bootstrap import interval
from opframe_registry import Split

MODEL = "model"
"""The name of the trained network's forecast; those of the baselines are their own."""

ONE_STEP, ROLL_OUT = "relative_l2", "relative_l2_rollout"
"""The values of the published error (L2RE), which have short names in reports and journals."""

_SHORT = {ONE_STEP: "step", ROLL_OUT: "full"}


@frozen(kw_only=True)
class Measure:
    """One of the named values of a metric: one for every frame of a roll-out, or one for the whole."""

    name: str
    metric: str
    better: Literal["lower", "higher"]
    per_frame: bool
    help: str = ""

    def improves(self, value: float, other: float) -> bool:
        """Whether a value is that of a better prediction than another one."""
        return value > other if self.better == "higher" else value < other


@frozen(kw_only=True)
class Value:
    """The mean of a measure over trajectories, and over their frames; `frames` is the curve against time, if any.

    `trajectories` are the means of each, shorter ones first, NaN where there is nothing to measure.
    """

    mean: float
    frames: tuple[float, ...] | None = None
    trajectories: tuple[float, ...] = ()

    def interval(self) -> tuple[float, float] | None:
        """Where the mean may lie, with 95 % confidence, had other trajectories been drawn; None: nobody can say."""
        return interval(self.trajectories)


@frozen(kw_only=True)
class Score:
    """Mean L2RE over trajectories: `step` is the mean of one-frame errors along the roll-out, `full` that of
    the roll-out as a whole, `first` that of its first frame, and `frames` the curve against time."""

    step: float
    full: float
    first: float
    frames: tuple[float, ...]


@frozen(kw_only=True)
class DatasetReport:
    """The values of one dataset, by name of the forecast and of the measure; `rollout` frames are predicted at most.

    `recognised` is the fraction of trajectories that a backbone's classification head assigns to this dataset, and
    `remarks` say where the truth is such that a relative error means nothing, and what is not evaluated.
    """

    title: str
    zero_shot: bool
    trajectories: int
    rollout: int
    time_step: float | None
    history: int
    values: Mapping[str, Mapping[str, Value]]
    recognised: float | None = None
    remarks: tuple[str, ...] = ()

    @property
    def scores(self) -> dict[str, Score]:
        """The published error of every forecast, where it is measured."""
        found = {}
        for name, values in self.values.items():
            step, full = values.get(ONE_STEP), values.get(ROLL_OUT)
            if step is not None and full is not None and step.frames:
                found[name] = Score(step=step.mean, full=full.mean, first=step.frames[0], frames=step.frames)
        return found

    def beats(self, baseline: str, measures: tuple[Measure, ...]) -> bool:
        """Whether the model is better than a baseline in all of some measures."""
        model, other = self.values[MODEL], self.values[baseline]
        return all(each.improves(model[each.name].mean, other[each.name].mean) for each in measures)


@frozen(kw_only=True)
class Report:
    """The values of all datasets, the measures in the order of the metrics, and the baselines, each in a sentence; of
    one `split`."""

    datasets: tuple[DatasetReport, ...]
    measures: tuple[Measure, ...]
    baselines: Mapping[str, str] = field(factory=dict)
    split: Split = "test"

    @property
    def forecasts(self) -> tuple[str, ...]:
        """The names of all forecasts, that of the model first."""
        return (MODEL, *self.baselines)

    def by_metric(self) -> list[tuple[Measure, ...]]:
        """The measures of each metric."""
        return [tuple(group) for _, group in groupby(self.measures, lambda measure: measure.metric)]

    def leading(self) -> Measure:
        """What checkpoints are selected by: of the first metric what is of a whole roll-out, or else its first."""
        first = self.by_metric()[0]
        return next((measure for measure in first if not measure.per_frame), first[0])

    def mean(self) -> float:
        """The model's mean of the leading measure over the datasets that it is trained on; NaN where there is none."""
        name = self.leading().name
        means = [item.values[MODEL][name].mean for item in self.datasets if not item.zero_shot]
        known = [mean for mean in means if not isnan(mean)]
        return sum(known) / len(known) if known else float("nan")

    def selected(self) -> float:
        """The number that checkpoints are selected by: the lower, the better; infinite where nothing is measured."""
        mean = self.mean()
        if isnan(mean):
            return inf
        return -mean if self.leading().better == "higher" else mean

    def numbers(self) -> dict[str, float]:
        """All means as flat names, for the journal."""
        result = {f"mean/{_short(self.leading().name)}": self.mean()}
        for item in self.datasets:
            for forecast, values in item.values.items():
                result |= {f"{item.title}/{forecast}/{_short(name)}": value.mean for name, value in values.items()}
            if item.recognised is not None:
                result[f"{item.title}/recognised"] = item.recognised
        return result

    def record(self) -> dict[str, Any]:
        """All of it as plain values. The published error has a place of its own, in which older reports have it."""
        datasets = []
        for item in self.datasets:
            values = {
                forecast: {name: {**attrs.asdict(value), "interval": value.interval()} for name, value in named.items()}
                for forecast, named in item.values.items()
            }
            scores = {name: attrs.asdict(score) for name, score in item.scores.items()}
            datasets.append({**attrs.asdict(item), "values": values, "scores": scores})
        return {**attrs.asdict(self), "datasets": datasets}


def _short(name: str) -> str:
    return _SHORT.get(name, name)
