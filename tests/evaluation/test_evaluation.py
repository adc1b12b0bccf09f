"""Errors and roll-outs are those of the DPOT test protocol."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from opframe.config.building import CheckedMetric, build_metric
from opframe.evaluation.protocol import Evaluator, model_forecast
from opframe.evaluation.report import verdict
from opframe.evaluation.scores import DatasetReport, Measure, Report, Value
from opframe.mixture.conditions import unknown_conditions
from opframe.mixture.source import Source
from opframe.processes import Processes
from opframe_baselines import Linear, Persistence
from opframe_metrics import RelativeL2
from opframe_metrics.errors import relative_l2
from opframe_registry import Backbone, Conditions, Fields, Metadata, Metric, Prediction


def test_errors_are_norms_per_channel_then_means() -> None:
    generator = torch.Generator().manual_seed(0)
    target, prediction = (torch.randn(2, 3, 4, 8, 8, generator=generator) for _ in range(2))
    mask = torch.zeros(4, 8, 8)
    mask[0], mask[2, ::2, ::2] = 1, 1
    errors = relative_l2(prediction, target, mask[None, None], Growing().metadata)
    for sample in range(2):
        full, frames = [], []
        for channel in (0, 2):
            kept = mask[channel].bool()
            truth, guess = target[sample, :, channel][:, kept].numpy(), prediction[sample, :, channel][:, kept].numpy()
            full.append(np.linalg.norm(guess - truth) / np.linalg.norm(truth))
            frames.append(np.linalg.norm(guess - truth, axis=1) / np.linalg.norm(truth, axis=1))
        assert errors["relative_l2_rollout"][sample].item() == pytest.approx(np.mean(full), rel=1e-5)
        assert errors["relative_l2"][sample].numpy() == pytest.approx(np.mean(frames, axis=0), rel=1e-5)


def forecast_of(component: Backbone, history: Tensor, horizon: int) -> Tensor:
    """What a backbone without weights predicts."""
    fields = Fields(channels=("u", "v", "w"), grid=(5, 5), history=history.shape[1], horizon=horizon)
    prediction: Prediction = component.build(fields)(history, unknown_conditions(fields, 2, history.device))
    return prediction.field


def test_baselines_repeat_the_last_frame_and_continue_its_line() -> None:
    history = torch.arange(4.0).view(1, 4, 1, 1, 1).expand(2, 4, 3, 5, 5)
    assert torch.equal(forecast_of(Persistence(), history, 3), torch.full((2, 3, 3, 5, 5), 3.0))
    assert forecast_of(Linear(), history, 3)[0, :, 0, 0, 0].tolist() == [4.0, 5.0, 6.0]
    one = history[:, :1]
    assert torch.equal(forecast_of(Linear(), one, 2), forecast_of(Persistence(), one, 2))


class SumOfLastTwo(nn.Module):
    """Predicts `horizon` frames: the sum of the last two frames it sees, then that plus one, and so on."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    def forward(self, u: Tensor, conditions: Conditions | None = None) -> Prediction:
        first = u[:, -1:] + u[:, -2:-1]
        return Prediction(field=torch.cat([first + index for index in range(self.horizon)], 1))


@pytest.mark.parametrize(("horizon", "expected"), [(1, [2, 3, 5, 8, 13]), (2, [2, 3, 5, 6, 11])])
def test_a_roll_out_feeds_predictions_back(horizon: int, expected: list[float]) -> None:
    history = torch.ones(1, 2, 1, 4, 4)
    fields = Fields(channels=("u",), grid=(4, 4), history=2)
    rolled = model_forecast(SumOfLastTwo(horizon), horizon)(history, 5, unknown_conditions(fields, 1, history.device))
    assert rolled[0, :, 0, 0, 0].tolist() == expected


@attrs.frozen
class Growing:
    """Trajectory i doubles every frame, from i + 1; its second channel is input only."""

    metadata: Metadata = attrs.field(
        factory=lambda: Metadata(trajectories=5, frames=7, grid=(4, 4), channels=("u", "mask"), predicted=("u",))
    )

    def read(self, trajectory: int, start: int, stop: int) -> np.ndarray:
        frames = (trajectory + 1) * 2.0 ** np.arange(start, stop)
        return np.broadcast_to(frames[:, None, None, None], (stop - start, 2, 4, 4)).astype("f4")


FIELDS = Fields(channels=("u", "mask"), grid=(4, 4), history=4)


def built(*metrics: Metric) -> tuple[CheckedMetric, ...]:
    return tuple(build_metric(metric, FIELDS) for metric in metrics)


def evaluator(**changes: object) -> Evaluator:
    source = Source(title="growing", weight=1.0, rollout=3, trajectories=Growing(), history=4)
    given = Evaluator(
        sources=[source],
        zero_shot=[],
        fields=FIELDS,
        processes=Processes(rank=0, count=1, device=torch.device("cpu")),
        batch_size=2,
        metrics=built(RelativeL2()),
        baselines={"persistence": Persistence(), "linear": Linear()},
    )
    return attrs.evolve(given, **changes)


def test_scores_are_those_worked_out_by_hand() -> None:
    report = evaluator().evaluate(SumOfLastTwo(1)).datasets[0]
    truth, still = np.array([16.0, 32.0, 64.0]), np.array([8.0, 8.0, 8.0])
    score = report.scores["persistence"]
    assert score.frames == pytest.approx(np.abs(still - truth) / truth)
    assert score.step == pytest.approx(np.mean(np.abs(still - truth) / truth))
    assert score.full == pytest.approx(np.linalg.norm(still - truth) / np.linalg.norm(truth))
    assert report.scores["model"].first == pytest.approx(4 / 16)
    assert report.scores["linear"].frames == pytest.approx([(16 - 12) / 16, (32 - 16) / 32, (64 - 20) / 64])
    assert report.trajectories == 5


def test_processes_share_the_trajectories_without_leaving_one_out() -> None:
    shares = [
        evaluator(processes=Processes(rank=rank, count=3, device=torch.device("cpu")))._shares(8) for rank in range(3)
    ]
    assert sorted(index for share in shares for batch in share for index in batch) == list(range(8))


L2RE = (
    Measure(name="relative_l2", metric="relative_l2", better="lower", per_frame=True),
    Measure(name="relative_l2_rollout", metric="relative_l2", better="lower", per_frame=False),
)


def of_dataset(title: str, **scores: tuple[float, float, float]) -> DatasetReport:
    """A dataset with the errors (one step, roll-out, first frame) of each forecast."""
    values = {
        name: {"relative_l2": Value(mean=step, frames=(first,)), "relative_l2_rollout": Value(mean=full)}
        for name, (step, full, first) in scores.items()
    }
    return DatasetReport(
        title=title, zero_shot=False, trajectories=1, rollout=1, time_step=None, history=1, values=values
    )


def verdict_on(*datasets: DatasetReport, baseline: str = "persistence") -> list[str]:
    return verdict(Report(datasets=datasets, measures=L2RE, baselines={baseline: "Something simple."}))


def test_a_model_that_loses_to_the_first_baseline_is_said_to() -> None:
    good = (0.1, 0.1, 0.1)
    won = of_dataset("won", model=good, persistence=(0.2, 0.3, 0.1))
    lost = of_dataset("lost", model=(0.1, 0.3, 0.1), persistence=(0.1, 0.2, 0.1))
    tied = of_dataset("tied", model=good, persistence=good)
    slow = of_dataset("slow", model=(0.1, 0.1, 0.4), persistence=(0.2, 0.3, 0.1))
    assert verdict_on(won) == ["The model beats persistence on every dataset, in both measures."]
    assert verdict_on(won, slow)[-1] == "In the first frame alone, persistence is better on slow."
    assert verdict_on(lost) == ["The model does NOT beat persistence on lost."]
    assert verdict_on(won, tied, lost) == ["The model does NOT beat persistence on tied, lost."]
    climate = of_dataset("earth", model=good, climatology=(0.2, 0.3, 0.1))
    assert verdict_on(climate, baseline="climatology")[0].startswith("The model beats climatology on every")
    assert verdict(Report(datasets=(of_dataset("alone", model=good),), measures=L2RE)) == []


@attrs.frozen
class Partly(Growing):
    """Trajectory 3 is zero everywhere, trajectory 1 in its frame 5 alone, trajectory 4 beyond what can be squared."""

    def read(self, trajectory: int, start: int, stop: int) -> np.ndarray:
        frames = np.array(Growing().read(trajectory, start, stop))
        if trajectory == 3:
            frames[:, 0] = 0
        if trajectory == 1 and start <= 5 < stop:
            frames[5 - start, 0] = 0
        return frames * np.float32(1e25) if trajectory == 4 else frames


@pytest.mark.parametrize("limit", [None, 3])
def test_a_truth_that_no_error_can_be_relative_to_is_named(limit: int | None) -> None:
    source = Source(title="partly", weight=1.0, rollout=3, trajectories=Partly(), history=4)
    report = evaluator(sources=[source], limit=limit).evaluate(SumOfLastTwo(1))
    (remark,) = report.datasets[0].remarks
    if limit:
        assert "in frames of 1 test trajectory: 1 (1 of 3)." in remark
    else:
        assert remark.startswith("partly: the true 'u' is zero everywhere, or too large to be squared, in frames of ")
        assert "3 test trajectories: 1 (1 of 3), 3 (3 of 3), 4 (3 of 3)." in remark
    assert remark in verdict(report)
    assert evaluator().evaluate(SumOfLastTwo(1)).datasets[0].remarks == ()
