"""Rolling models out over held-out trajectories (the DPOT test protocol)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from signal import SIGTERM

import attrs
import torch
from attrs import frozen
from torch import Tensor, nn

from opframe.console import counted
from opframe.evaluation.metrics import linear_extrapolation, persistence, relative_errors
from opframe.layers.derived import constant_weights
from opframe.mixture.conditions import changed, conditions_of, unknown_conditions
from opframe.mixture.rollout import Forecast, model_forecast
from opframe.mixture.source import Source, evaluation_mask, read_frames
from opframe.processes import Processes
from opframe.signals import Interrupted
from opframe_registry import Conditions, Fields, Prediction, Split

_SHOWN = 5  # trajectories that a remark names


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
    """The scores of one dataset, by name of the forecast: model, persistence, linear.

    `recognised` is the fraction of trajectories that a backbone's classification head assigns to this dataset, and
    `remarks` say where the truth is such that a relative error means nothing.
    """

    title: str
    zero_shot: bool
    trajectories: int
    time_step: float | None
    history: int
    scores: dict[str, Score]
    recognised: float | None = None
    remarks: tuple[str, ...] = ()

    def beats_persistence(self) -> bool:
        """Whether the model is better in both measures."""
        model, still = self.scores["model"], self.scores["persistence"]
        return model.step < still.step and model.full < still.full


@frozen(kw_only=True)
class Report:
    """The scores of all datasets."""

    datasets: tuple[DatasetReport, ...]

    def mean_error(self) -> float:
        """The model's mean roll-out error over the datasets that it is trained on."""
        errors = [item.scores["model"].full for item in self.datasets if not item.zero_shot]
        return sum(errors) / len(errors)

    def numbers(self) -> dict[str, float]:
        """The scores as flat names, for the journal."""
        result = {"mean/full": self.mean_error()}
        for item in self.datasets:
            for name, score in item.scores.items():
                result |= {f"{item.title}/{name}/step": score.step, f"{item.title}/{name}/full": score.full}
            if item.recognised is not None:
                result[f"{item.title}/recognised"] = item.recognised
        return result


@frozen(kw_only=True)
class Evaluator:
    """Evaluates a backbone on one split of every dataset, shared among the processes."""

    sources: Sequence[Source]
    zero_shot: Sequence[Source]
    fields: Fields
    processes: Processes
    batch_size: int
    bfloat16: bool = False
    limit: int | None = None
    split: Split = "test"

    @torch.no_grad()
    def evaluate(self, backbone: nn.Module, signal: Callable[[], int | None] = lambda: None) -> Report:
        """The model's scores beside persistence and linear extrapolation. Leaves the model in eval mode.

        `signal` is asked between batches; when it gives one to any process, Interrupted is raised in all of them.
        """
        backbone.eval()
        forecasts = {
            "model": model_forecast(backbone, self.fields.horizon),
            "persistence": persistence,
            "linear": linear_extrapolation,
        }
        reports = [self._dataset(source, forecasts, False, signal) for source in self.sources]
        if self._classifies(backbone):
            reports = [self._recognise(backbone, index, report) for index, report in enumerate(reports)]
        reports += [self._dataset(source, forecasts, True, signal) for source in self.zero_shot]
        return Report(datasets=tuple(reports))

    def _classifies(self, backbone: nn.Module) -> bool:
        """Whether the backbone has a classification head, asked of every process with one sample of zeros."""
        fields = self.fields
        sample = torch.zeros(1, fields.history, len(fields.channels), *fields.grid, device=self.processes.device)
        prediction: Prediction = backbone(sample, unknown_conditions(fields, 1, self.processes.device))
        return prediction.class_logits is not None

    def _recognise(self, backbone: nn.Module, dataset: int, report: DatasetReport) -> DatasetReport:
        """Add what fraction of the trajectories the classification head assigns to their dataset."""
        right = torch.zeros((), device=self.processes.device)
        number = self.fields.datasets.index(report.title)  # not all have validation data
        for trajectories in self._shares(report.trajectories):
            history, _ = self.read(self.sources[dataset], trajectories, frames=0)
            conditions = self.conditions(self.sources[dataset], trajectories)
            right += (backbone(history, conditions).class_logits.argmax(1) == number).sum()
        return attrs.evolve(report, recognised=self.processes.sum(right).item() / report.trajectories)

    def _dataset(
        self, source: Source, forecasts: dict[str, Forecast], zero_shot: bool, signal: Callable[[], int | None]
    ) -> DatasetReport:
        count = min(source.metadata.trajectories, self.limit or source.metadata.trajectories)
        mask = evaluation_mask(source.metadata, source.seen(self.fields)).to(self.processes.device)
        sums = {name: torch.zeros(1 + source.rollout, dtype=torch.float64) for name in forecasts}
        senseless = torch.zeros(count, len(self.fields.channels), dtype=torch.int32)  # frames of a trajectory's channel
        for trajectories in self._shares(count):
            if signal() is not None:
                break
            history, future = self.read(source, trajectories)
            conditions = self.conditions(source, trajectories)
            for name, forecast in forecasts.items():
                predicted = self.run(forecast, history, source.rollout, conditions)
                errors = relative_errors(source.physical(predicted), source.physical(future), mask)
                sums[name] += torch.cat([errors.full[:, None], errors.frames], 1).sum(0).double().cpu()
            senseless[list(trajectories)] = errors.senseless.sum(1, dtype=torch.int32).cpu()
        if self.processes.any(signal() is not None):
            raise Interrupted(signal() or SIGTERM)
        scores = {name: _score(self.processes.sum(total).cpu() / count) for name, total in sums.items()}
        return DatasetReport(
            title=source.title,
            zero_shot=zero_shot,
            trajectories=count,
            time_step=source.metadata.time_step,
            history=self.fields.history,
            scores=scores,
            remarks=_remarks(source, self.split, self.processes.sum(senseless).tolist()),
        )

    def _shares(self, count: int) -> Iterator[range]:
        """This process's trajectories, in batches."""
        mine = range(self.processes.rank, count, self.processes.count)
        for first in range(0, len(mine), self.batch_size):
            yield mine[first : first + self.batch_size]

    def read(self, source: Source, trajectories: Sequence[int], frames: int | None = None) -> tuple[Tensor, Tensor]:
        """History (B, T_in, C, *grid) and true future (B, frames or rollout, C, *grid), on the device.

        They are as a model sees them: `source.physical` restores the units of data that are normalised.
        """
        stop = self.fields.history + (source.rollout if frames is None else frames)
        read = torch.stack([read_frames(source, index, 0, stop, self.fields) for index in trajectories])
        read = read.to(self.processes.device)
        return read[:, : self.fields.history], read[:, self.fields.history :]

    def conditions(self, source: Source, trajectories: Sequence[int]) -> Conditions:
        """What a model is told of trajectories, on the device."""
        known = conditions_of([source] * len(trajectories), trajectories, self.fields)
        return changed(known, lambda tensor: tensor.to(self.processes.device))

    @torch.no_grad()
    def run(self, forecast: Forecast, history: Tensor, frames: int, conditions: Conditions) -> Tensor:
        """A forecast under the precision of training."""
        with constant_weights(), torch.autocast(history.device.type, torch.bfloat16, enabled=self.bfloat16):
            return forecast(history, frames, conditions)

    def limited(self, limit: int | None) -> Evaluator:
        """The same on the first few trajectories of each dataset that is trained on."""
        return attrs.evolve(self, limit=limit, zero_shot=())


def _remarks(source: Source, split: Split, senseless: list[list[int]]) -> tuple[str, ...]:
    """What to say of each channel of some of whose trajectories so many frames are zero everywhere, or too large."""
    remarks = []
    for index, channel in enumerate(source.metadata.channels):
        counts = {source.number(number): counts[index] for number, counts in enumerate(senseless) if counts[index]}
        if not counts:
            continue
        shown = ", ".join(f"{number} ({count} of {source.rollout})" for number, count in [*counts.items()][:_SHOWN])
        more = f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else ""
        those = counted(len(counts), f"{split} trajectory")
        remarks.append(
            f"{source.title}: the true '{channel}' is zero everywhere, or too large to be squared, in frames of "
            f"{those}: {shown}{more}. A relative error says nothing there, and the means above contain it."
        )
    return tuple(remarks)


def _score(mean: Tensor) -> Score:
    full, frames = mean[0].item(), mean[1:]
    return Score(step=frames.mean().item(), full=full, first=frames[0].item(), frames=tuple(frames.tolist()))
