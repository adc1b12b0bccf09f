"""Rolling models out over trajectories (the DPOT test protocol)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from signal import SIGTERM

import attrs
import torch
from attrs import field, frozen
from torch import Tensor, nn

from opframe.config import building
from opframe.config.building import CheckedMetric
from opframe.evaluation.examples import Examples, read_examples
from opframe.evaluation.measuring import Gathering, measured
from opframe.evaluation.remarks import senseless_frames, senseless_remarks, too_short
from opframe.evaluation.scores import MODEL, DatasetReport, Measure, Report, Value
from opframe.layers.derived import constant_weights
from opframe.mixture.conditions import unknown_conditions
from opframe.mixture.rollout import Forecast, model_forecast
from opframe.mixture.source import Source, evaluation_mask
from opframe.processes import ElsewhereError, Processes
from opframe.signals import Interrupted
from opframe_registry import Backbone, Conditions, DataError, Fields, OpframeError, Prediction, Split
from opframe_registry.component import summary


@frozen(kw_only=True)
class Evaluator:
    """Evaluates a backbone on trajectories of one split of some datasets, shared among the processes.

    `zero_shot` are those that are not trained on. `metrics` say how far the model is from the truth, and how far the
    `baselines` are, backbones without weights by name.
    """

    sources: Sequence[Source]
    zero_shot: Sequence[Source]
    fields: Fields
    processes: Processes
    batch_size: int
    bfloat16: bool = False
    metrics: Sequence[CheckedMetric] = ()
    baselines: Mapping[str, Backbone] = field(factory=dict)
    limit: int | None = None
    split: Split = "test"
    remarks: bool = True

    @torch.no_grad()
    def evaluate(self, backbone: nn.Module, signal: Callable[[], int | None] = lambda: None) -> Report:
        """What the metrics say of the model beside the baselines. Leaves the model in eval mode.

        `signal` is asked between batches; when it gives one to any process, Interrupted is raised in all of them.
        """
        backbone.eval()
        found = [self._dataset(source, backbone, False, signal) for source in self.sources]
        if self.try_once(backbone).class_logits is not None:
            found = [
                (self._recognise(backbone, index, report), measures) for index, (report, measures) in enumerate(found)
            ]
        found += [self._dataset(source, backbone, True, signal) for source in self.zero_shot]
        return Report(
            datasets=tuple(report for report, _ in found),
            measures=tuple(dict.fromkeys(measure for _, measures in found for measure in measures)),
            baselines={name: summary(type(component)) for name, component in self.baselines.items()},
            split=self.split,
        )

    @torch.no_grad()
    def try_once(self, backbone: nn.Module) -> Prediction:
        """What the backbone makes of one sample of zeros, on every process. Raises WrongPredictionError."""
        fields, device = self.fields, self.processes.device
        sample = torch.zeros(1, fields.history, len(fields.channels), *fields.grid, device=device)
        returned = backbone(sample, unknown_conditions(fields, 1, device))
        return building.check_prediction(backbone, returned, (1, fields.horizon, *sample.shape[2:]))

    def _recognise(self, backbone: nn.Module, dataset: int, report: DatasetReport) -> DatasetReport:
        """Add what fraction of the trajectories the classification head assigns to their dataset."""
        right = torch.zeros((), device=self.processes.device)
        number = self.fields.datasets.index(report.title)  # of the training data, some of which may not be evaluated
        trajectories = self.trajectories(self.sources[dataset])
        for rows in self._shares(len(trajectories)):
            examples = self.read(self.sources[dataset], [trajectories[row] for row in rows], frames=0)
            right += (backbone(examples.history, examples.conditions).class_logits.argmax(1) == number).sum()
        return attrs.evolve(report, recognised=self.processes.sum(right).item() / report.trajectories)

    def _dataset(
        self, source: Source, backbone: nn.Module, zero_shot: bool, signal: Callable[[], int | None]
    ) -> tuple[DatasetReport, tuple[Measure, ...]]:
        trajectories = self.trajectories(source)
        gathering = Gathering(len(trajectories), source.rollout)
        senseless = torch.zeros(source.metadata.trajectories, len(self.fields.channels), dtype=torch.int32)
        forecasts, mask = self._forecasts(source, backbone), self.mask(source)
        error: OpframeError | None = None
        try:
            for rows in self._shares(len(trajectories)):
                if signal() is not None:
                    break
                batch = [trajectories[row] for row in rows]
                examples = self.read(source, batch)
                counted, truth = examples.counted(mask), source.physical(examples.future)
                for name, forecast in forecasts.items():
                    predicted = self.predict(source, forecast, examples)
                    values = measured(self.metrics, predicted, truth, counted, source.metadata)
                    gathering.add(name, rows, examples, predicted, values)
                if self.remarks:
                    senseless[batch] = senseless_frames(truth, counted)
        except OpframeError as refusal:
            error = refusal  # of which the others have to hear
        self._agree(signal(), error)
        found = gathering.gathered(self.processes)
        remarks = senseless_remarks(source, self.split, self.processes.sum(senseless).tolist()) if self.remarks else ()
        return self._report(source, zero_shot, len(trajectories), found, remarks), tuple(found[MODEL])

    def _agree(self, signal: int | None, error: OpframeError | None) -> None:
        """Raises the error in its process and ElsewhereError in the others, or Interrupted in all of them."""
        interrupted, failed = self.processes.ask_any(signal is not None, error is not None)()
        if failed:
            raise error or ElsewhereError("another process cannot evaluate")
        if interrupted:
            raise Interrupted(signal or SIGTERM)

    def _report(
        self,
        source: Source,
        zero_shot: bool,
        trajectories: int,
        found: Mapping[str, Mapping[Measure, Value]],
        remarks: Sequence[str],
    ) -> DatasetReport:
        return DatasetReport(
            title=source.title,
            zero_shot=zero_shot,
            trajectories=trajectories,
            rollout=source.rollout,
            time_step=source.metadata.time_step,
            history=self.fields.history,
            values={name: {each.name: value for each, value in values.items()} for name, values in found.items()},
            remarks=(*too_short(source), *remarks),
        )

    def _forecasts(self, source: Source, backbone: nn.Module) -> dict[str, Forecast]:
        """The model's, and those of the baselines, each of which predicts a whole roll-out at once."""
        forecasts = {MODEL: model_forecast(backbone, self.fields.horizon, source.metadata.missing is not None)}
        for name, component in self.baselines.items():
            fields = attrs.evolve(source.seen(self.fields), horizon=source.rollout)
            network = building.build_network(component, fields).to(self.processes.device).eval()
            forecasts[name] = _blamed(component, model_forecast(network, source.rollout))
        return forecasts

    def trajectories(self, source: Source) -> list[int]:
        """The numbers of those that are evaluated, by their length. Raises DataError where all are too short."""
        numbers = [number for number in range(source.metadata.trajectories) if source.rollout_of(number) > 0]
        if not numbers:
            raise DataError(f"{source.title}: no trajectory is long enough to be evaluated")
        return sorted(numbers[: self.limit], key=source.rollout_of)

    def _shares(self, count: int) -> Iterator[range]:
        """The places of this process's trajectories among those that are evaluated, in batches."""
        mine = range(self.processes.rank, count, self.processes.count)
        for first in range(0, len(mine), self.batch_size):
            yield mine[first : first + self.batch_size]

    def read(self, source: Source, trajectories: Sequence[int], frames: int | None = None) -> Examples:
        """Trajectories as far as each is rolled out, or with so many `frames` to be predicted, on the device."""
        lengths = [source.rollout_of(number) if frames is None else frames for number in trajectories]
        return read_examples(source, trajectories, lengths, self.fields, self.processes.device)

    def mask(self, source: Source) -> Tensor:
        """Where errors of a dataset count, as far as that is the same for all of it: (C, *grid)."""
        return evaluation_mask(source.metadata, source.seen(self.fields)).to(self.processes.device)

    def predict(self, source: Source, forecast: Forecast, examples: Examples) -> Tensor:
        """What a forecast makes of trajectories, (B, T, C, *grid) in the dataset's own units."""
        return source.physical(self.run(forecast, examples.history, examples.frames, examples.conditions))

    @torch.no_grad()
    def run(self, forecast: Forecast, history: Tensor, frames: int, conditions: Conditions) -> Tensor:
        """A forecast under the precision of training."""
        with constant_weights(), torch.autocast(history.device.type, torch.bfloat16, enabled=self.bfloat16):
            return forecast(history, frames, conditions)

    def limited(self, limit: int | None) -> Evaluator:
        """The same on the first few trajectories of each dataset that is trained on, without remarks on the data."""
        return attrs.evolve(self, limit=limit, zero_shot=(), remarks=False)


def _blamed(component: Backbone, forecast: Forecast) -> Forecast:
    """The forecast of a baseline, which raises PluginError naming it."""

    def checked(history: Tensor, frames: int, conditions: Conditions) -> Tensor:
        with building.blamed(component, "its network"):
            return forecast(history, frames, conditions)

    return checked
