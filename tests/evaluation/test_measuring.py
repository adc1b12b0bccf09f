"""What metrics say is averaged over what there is to measure, whatever its length, and whoever has measured it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from math import inf, isnan, nan
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import attrs
import numpy as np
import pytest
import torch
import torch.distributed as dist
from attrs import frozen
from torch import Tensor, nn

from opframe.config.building import CheckedMetric, build_metric
from opframe.evaluation import examples
from opframe.evaluation.protocol import model_forecast
from opframe.evaluation.report import verdict
from opframe.evaluation.scores import Measure, Report, Value
from opframe.mixture.source import Source
from opframe.processes import Processes
from opframe_metrics import RelativeL2, RootMeanSquare
from opframe_metrics.errors import relative_l2, rmse
from opframe_registry import (
    Conditions,
    ConfigError,
    Fields,
    Metadata,
    Metric,
    MetricFunction,
    PluginError,
    Prediction,
)
from tests.evaluation.test_evaluation import FIELDS, SumOfLastTwo, built, evaluator

LENGTHS = (7, 5, 4, 6, 7)


@attrs.frozen
class Uneven:
    """Trajectories of different lengths: u is n + 1 in frame n of each, and doubles from one trajectory to the next."""

    missing: float | None = None

    @property
    def metadata(self) -> Metadata:
        return Metadata(
            trajectories=5,
            frames=7,
            lengths=LENGTHS,
            grid=(4, 4),
            channels=("u", "mask"),
            predicted=("u",),
            missing=self.missing,
        )

    def read(self, trajectory: int, start: int, stop: int) -> np.ndarray:
        assert stop <= LENGTHS[trajectory]
        frames = 2.0**trajectory * np.arange(start + 1, stop + 1)
        return np.broadcast_to(frames[:, None, None, None], (stop - start, 2, 4, 4)).astype("f4")


def uneven(**changes: Any) -> Source:
    return Source(title="uneven", weight=1.0, rollout=3, trajectories=Uneven(), history=4, short=(2,), **changes)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_each_trajectory_is_rolled_out_to_its_own_end(batch_size: int) -> None:
    """Persistence stays at 4 where the truth is 5, 6, 7: trajectory 1 has the first of them alone, 3 the first two."""
    report = evaluator(sources=[uneven()], batch_size=batch_size).evaluate(SumOfLastTwo(1)).datasets[0]
    errors = np.array([1 / 5, 2 / 6, 3 / 7])
    value = report.values["persistence"]["relative_l2"]
    assert report.trajectories == 4
    assert value.frames == pytest.approx(errors)
    assert value.mean == pytest.approx(np.mean([errors.mean(), errors[0], errors[:2].mean(), errors.mean()]))
    whole = [np.hypot.reduce([1, 2, 3][:n]) / np.hypot.reduce([5, 6, 7][:n]) for n in (3, 1, 2, 3)]
    assert report.values["persistence"]["relative_l2_rollout"].mean == pytest.approx(np.mean(whole))
    assert report.remarks == (
        "uneven: 1 trajectory too short to be predicted after 4 frames of history, and not evaluated: 2.",
    )


def test_a_limit_leaves_out_the_last_of_those_that_are_long_enough() -> None:
    given = evaluator(sources=[uneven()])
    assert given.limited(3).trajectories(uneven()) == [1, 2, 0]


def values_of(report: Report) -> dict[str, Any]:
    return {item.title: attrs.asdict(item)["values"] for item in report.datasets}


def in_process(rank: int, count: int, folder: Path, metrics: tuple[Metric, ...]) -> None:
    """One of some processes that evaluate together, and what it found."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=count)
    processes = Processes(rank=rank, count=count, device=torch.device("cpu"))
    short = Source(title="one", weight=1.0, rollout=3, trajectories=OneOnly(), history=4)
    given = evaluator(sources=[uneven(), short], processes=processes, metrics=built(*metrics), batch_size=3)
    report = given.evaluate(SumOfLastTwo(1))
    (folder / f"{rank}.json").write_text(json.dumps([values_of(report), report.selected(), len(report.measures)]))
    dist.destroy_process_group()


@attrs.frozen
class OneOnly(Uneven):
    """The last of these trajectories alone, of which a second process has none."""

    @property
    def metadata(self) -> Metadata:
        return attrs.evolve(Uneven().metadata, trajectories=1, lengths=())

    def read(self, trajectory: int, start: int, stop: int) -> np.ndarray:
        return Uneven().read(4, start, stop)


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    metrics = (RelativeL2(), RootMeanSquare())
    context = get_context("fork")
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        started = [context.Process(target=in_process, args=(rank, count, folder, metrics)) for rank in range(count)]
        for process in started:
            process.start()
        for process in started:
            process.join(60)
            assert process.exitcode == 0
    alone, *both = (json.loads((tmp_path / name).read_text()) for name in ("1/0.json", "2/0.json", "2/1.json"))
    assert both[0] == both[1]
    assert both[0][1:] == [pytest.approx(alone[1], rel=1e-12), 3]
    for title, forecasts in alone[0].items():
        for forecast, values in forecasts.items():
            for name, value in values.items():
                found = both[0][0][title][forecast][name]
                assert found["mean"] == pytest.approx(value["mean"], rel=1e-12)
                assert (found["frames"] or []) == pytest.approx(value["frames"] or [], rel=1e-12)


def test_frames_and_points_that_do_not_count_change_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    truth, prediction = (torch.randn(2, 3, 2, 4, 4, generator=generator) for _ in range(2))
    metadata = Metadata(trajectories=1, frames=1, grid=(4, 4), channels=("u", "v"), predicted=("u", "v"))
    mask = torch.ones(2, 3, 2, 4, 4)
    mask[0, 2] = 0  # a trajectory that ends
    mask[1, :, 1] = 0  # a channel that is missing
    mask[0, 0, 0, :2] = 0  # land
    spoilt = prediction.where(mask > 0, 1e6)
    for function in (relative_l2, rmse):
        one, two = (function(each, truth, mask, metadata) for each in (prediction, spoilt))
        assert all(torch.equal(one[name].nan_to_num(-1), two[name].nan_to_num(-1)) for name in one)
        frames = next(iter(one.values()))
        assert frames.isnan().tolist() == [[False, False, True], [False] * 3]
    found = relative_l2(prediction, truth, mask, metadata)
    error, size = prediction - truth, truth
    u = error[1, 0, 0].norm() / size[1, 0, 0].norm()
    assert found["relative_l2"][1, 0].item() == pytest.approx(u.item(), rel=1e-5)
    land = error[0, 0, 0, 2:].norm() / size[0, 0, 0, 2:].norm()
    v = error[0, 0, 1].norm() / size[0, 0, 1].norm()
    assert found["relative_l2"][0, 0].item() == pytest.approx((land + v).item() / 2, rel=1e-5)
    root = error[0, 0, 0, 2:].square().mean().sqrt(), error[0, 0, 1].square().mean().sqrt()
    assert rmse(prediction, truth, mask, metadata)["rmse"][0, 0].item() == pytest.approx(float(sum(root)) / 2, rel=1e-5)
    nothing = relative_l2(prediction, truth, torch.zeros(1, 1, 1, 1, 1), metadata)
    assert all(bool(value.isnan().all()) for value in nothing.values())


def test_one_mask_for_all_is_the_same_as_one_for_each() -> None:
    generator = torch.Generator().manual_seed(1)
    truth, prediction = (torch.randn(2, 3, 2, 8, generator=generator) for _ in range(2))
    metadata = Metadata(trajectories=1, frames=1, grid=(8,), channels=("u", "v"), predicted=("u",))
    mask = torch.tensor([1.0, 0.0]).view(1, 1, 2, 1)
    for function in (relative_l2, rmse):
        one = function(prediction, truth, mask, metadata)
        each = function(prediction, truth, mask.expand(2, 3, 2, 8), metadata)
        assert all(torch.allclose(one[name], each[name]) for name in one)


class Recording(nn.Module):
    """Adds one, and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.valid: list[Tensor] = []

    def forward(self, u: Tensor, conditions: Conditions) -> Prediction:
        self.seen.append(u)
        self.valid.append(conditions.valid)
        return Prediction(field=u[:, -1:] + 1)


def with_land(source: Source, trajectory: int, start: int, stop: int, fields: Fields) -> tuple[Tensor, Tensor]:
    """The left half of the grid is land; of frame 5 another point is missing."""
    known = torch.ones(stop - start, 2, 4, 4, dtype=torch.bool)
    known[:, :, :2] = False
    known[5 - start : 6 - start, :, 3, 3] = False
    frames = torch.from_numpy(source.read(trajectory, start, stop).copy())
    return frames.masked_fill(~known, 0.0), known


def test_a_model_is_given_zeros_on_land_also_where_it_has_predicted_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "read_known", with_land)
    model = Recording()
    source = uneven(resize="native")
    source = attrs.evolve(source, trajectories=Uneven(missing=nan))
    report = evaluator(sources=[source], batch_size=4).evaluate(model).datasets[0]
    rolled = model.seen[:3]
    assert [valid.shape for valid in model.valid[:3]] == [(4, 1, 4, 4)] * 3
    assert not any(bool(seen[:, :, :, :2].any()) for seen in rolled)
    assert all(bool(seen[:, :, :, 2:].all()) for seen in rolled)
    assert not model.valid[0][:, :, :2].any()
    assert model.valid[0][:, :, 2:].all()
    # u is s (n + 1) in frame n, and the model adds one to 4 s: n + 1 of it after n frames
    errors = [
        [abs(4 * s + n - s * (4 + n)) / (s * (4 + n)) for n in range(1, length - 3)]
        for s, length in zip((1.0, 2.0, 8.0, 16.0), (7, 5, 6, 7), strict=True)
    ]
    assert report.values["model"]["relative_l2"].mean == pytest.approx(np.mean([np.mean(own) for own in errors]))
    assert report.remarks == (
        "uneven: 1 trajectory too short to be predicted after 4 frames of history, and not evaluated: 2.",
    )


def test_what_is_not_missing_is_fed_back_as_it_is() -> None:
    history = torch.ones(1, 4, 2, 4, 4)
    model = Recording()
    conditions = evaluator().read(evaluator().sources[0], [0]).conditions
    land = dataclasses.replace(conditions, valid=torch.zeros(1, 1, 4, 4, dtype=torch.bool))
    assert model_forecast(model, 1)(history, 3, land)[0, :, 0, 0, 0].tolist() == [2, 3, 4]
    assert model_forecast(model, 1, missing=True)(history, 3, land)[0, :, 0, 0, 0].tolist() == [0, 0, 0]


@final
@frozen(kw_only=True)
class Made(Metric):
    """A metric whose function is given."""

    name: ClassVar[str] = "made"
    function: Callable[..., Any] = attrs.field()

    def build(self, fields: Fields) -> MetricFunction:
        return self.function


@final
@frozen(kw_only=True)
class Agreement(Metric):
    """The cosine between prediction and truth, in every frame."""

    name: ClassVar[str] = "agreement"
    better: ClassVar[Literal["lower", "higher"]] = "higher"

    def build(self, fields: Fields) -> MetricFunction:
        def agreement(prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> dict[str, Tensor]:
            one, two = (prediction * mask).flatten(2), (truth * mask).flatten(2)
            return {"agreement": torch.cosine_similarity(one, two, dim=2)}

        return agreement


def test_a_metric_of_a_third_party_selects_what_is_higher() -> None:
    report = evaluator(metrics=built(Agreement(), RelativeL2())).evaluate(Negative())
    assert report.leading().name == "agreement"
    assert (report.mean(), report.selected()) == (pytest.approx(-1), pytest.approx(1))
    assert report.numbers()["growing/persistence/agreement"] == pytest.approx(1)
    assert report.numbers()["mean/agreement"] == pytest.approx(-1)
    assert verdict(report) == [
        "The model does NOT beat persistence on growing.",
        "In the first frame alone, persistence is better on growing.",
    ]
    plain = evaluator().evaluate(Negative())
    assert report.datasets[0].scores == plain.datasets[0].scores
    assert plain.selected() == plain.numbers()["mean/full"] == plain.datasets[0].scores["model"].full


class Negative(nn.Module):
    """Has the last frame with the wrong sign."""

    def forward(self, u: Tensor, conditions: Conditions) -> Prediction:
        return Prediction(field=-u[:, -1:].abs())


def test_what_is_measured_beside_the_published_error_leaves_it_as_it_is() -> None:
    """A record has the published error where earlier reports have it, and everything that is measured beside it."""
    both = evaluator(metrics=built(RelativeL2(), RootMeanSquare())).evaluate(SumOfLastTwo(1))
    alone = evaluator().evaluate(SumOfLastTwo(1))
    (item,), (other,) = both.record()["datasets"], alone.record()["datasets"]
    assert item["scores"] == other["scores"]
    assert item["scores"]["model"].keys() == {"step", "full", "first", "frames"}
    assert item["values"]["persistence"]["rmse"]["frames"] == pytest.approx([24.0, 72.0, 168.0])
    assert item["values"]["persistence"]["rmse"]["mean"] == pytest.approx(88.0)
    assert both.numbers().items() > alone.numbers().items()
    assert json.loads(json.dumps(both.record()))["measures"][2]["name"] == "rmse"


def nan_for(trajectory: int) -> Callable[..., dict[str, Tensor]]:
    """A function that has nothing to measure where the truth is that of one trajectory, and else is 1."""

    def function(prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> dict[str, Tensor]:
        first = truth[:, 0, 0, 0, 0]
        return {"made": torch.where(first == 16.0 * (trajectory + 1), nan, first)}

    return function


class Diverging(nn.Module):
    """Is not finite from the second predicted frame on."""

    def forward(self, u: Tensor, conditions: Conditions) -> Prediction:
        return Prediction(field=u[:, -1:] * (3e38 / u[:, -1:].abs().amax()).clamp(max=3e38) * 10)


def test_nothing_to_measure_counts_for_nothing_but_a_roll_out_that_blows_up_does() -> None:
    metrics = built(Made(function=nan_for(2)))
    assert evaluator(metrics=metrics).evaluate(SumOfLastTwo(1)).mean() == pytest.approx(16 * (1 + 2 + 4 + 5) / 4)
    report = evaluator(metrics=built(RelativeL2(), Agreement())).evaluate(Diverging())
    values = report.datasets[0].values["model"]
    assert values["relative_l2_rollout"].mean == report.selected() == inf
    assert values["agreement"].mean == -inf
    nothing = evaluator(metrics=built(Made(function=lambda p, t, m, d: {"x": torch.full((len(p),), nan)})))
    report = nothing.evaluate(SumOfLastTwo(1))
    assert isnan(report.mean())
    assert report.selected() == inf


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "raises": (lambda p, t, m, d: 1 / 0, r"its function raised ZeroDivisionError: division by zero \("),
    "number": (lambda p, t, m, d: 3, "its function returned int; expected a mapping from names to tensors"),
    "nothing": (lambda p, t, m, d: {}, "its function returned dict; expected a mapping from names to tensors"),
    "scalar": (lambda p, t, m, d: {"x": p.mean()}, r"returned a tensor \(\) as 'x'; expected .* \(2,\), one value"),
    "channels": (lambda p, t, m, d: {"x": p.mean((3, 4))}, r"a tensor \(2, 3, 2\) as 'x'; expected .* or \(2, 3\)"),
    "list": (lambda p, t, m, d: {"x": [1.0, 2.0]}, "returned list as 'x'"),
    "unnamed": (lambda p, t, m, d: {1: p.mean((1, 2, 3, 4))}, r"returned a tensor \(2,\) as 1; expected a name"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_metric_that_is_wrong_is_named(name: str) -> None:
    function, words = WRONG[name]
    with pytest.raises(PluginError, match=rf"metric 'made' of the plugin tests: .*{words}"):
        evaluator(metrics=(build_metric(Made(function=function), FIELDS),)).evaluate(SumOfLastTwo(1))


def test_two_metrics_of_one_value_are_refused() -> None:
    with pytest.raises(ConfigError, match="metrics: 'relative_l2' and 'relative_l2' both measure 'relative_l2'; leave"):
        evaluator(metrics=built(RelativeL2(), RelativeL2())).evaluate(SumOfLastTwo(1))


def test_names_of_measures_stay_with_their_metric() -> None:
    both: tuple[CheckedMetric, ...] = built(RelativeL2(), RootMeanSquare())
    report = evaluator(metrics=both).evaluate(SumOfLastTwo(1))
    assert [[measure.name for measure in metric] for metric in report.by_metric()] == [
        ["relative_l2", "relative_l2_rollout"],
        ["rmse"],
    ]
    assert isinstance(report.leading(), Measure)
    assert report.leading().name == "relative_l2_rollout"
    assert attrs.evolve(report, measures=report.measures[2:]).leading().name == "rmse"


def test_an_interval_is_that_of_the_bootstrap_and_needs_two_finite_values() -> None:
    values = torch.randn(40, generator=torch.Generator().manual_seed(0)).double() + 3
    value = Value(mean=float(values.mean()), trajectories=(*values.tolist(), float("nan")))
    low, high = value.interval() or (0.0, 0.0)
    assert low < value.mean < high
    deviation = float(values.std(correction=0)) / 40**0.5
    assert (high - low) / 2 == pytest.approx(1.96 * deviation, rel=0.1)  # as many samples come near a normal one
    assert value.interval() == (low, high)
    nan, inf = float("nan"), float("inf")
    assert [Value(mean=1.0, trajectories=each).interval() for each in ((), (1.0,), (1.0, nan), (1.0, inf))] == [
        None
    ] * 4
    assert Value(mean=2.0, trajectories=(2.0, 2.0)).interval() == (2.0, 2.0)


def test_intervals_are_in_records_and_in_words() -> None:
    report = evaluator(metrics=built(RelativeL2())).evaluate(SumOfLastTwo(1))
    (item,) = report.record()["datasets"]
    value = item["values"]["persistence"]["relative_l2_rollout"]
    assert value["interval"] == report.datasets[0].values["persistence"]["relative_l2_rollout"].interval()
    assert value["mean"] == pytest.approx(sum(value["trajectories"]) / len(value["trajectories"]))
    assert len(value["trajectories"]) == report.datasets[0].trajectories
