"""The metrics against NumPy in float64, against cases that one can compute by hand, and in a run."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from opframe_metrics import (
    Boundary,
    Conservation,
    Fourier,
    Maximum,
    Normalised,
    Pearson,
    RootMeanSquare,
    VarianceScaled,
)
from opframe_metrics.errors import rmse
from opframe_registry import Fields, Metadata, Metric
from weights_support import Call

GRID = (24, 20)
METADATA = Metadata(
    trajectories=2,
    frames=9,
    grid=GRID,
    channels=("h", "u"),
    predicted=("h", "u"),
    conserved={"mass": ("h",), "momentum": ("h", "u")},
)
MASK = torch.ones(1, 1, 2, *GRID)


def measured(
    metric: Metric, prediction: Tensor, truth: Tensor, mask: Tensor = MASK, metadata: Metadata = METADATA
) -> dict[str, np.ndarray]:
    fields = Fields(channels=metadata.channels, grid=metadata.grid, history=1)
    found = metric.build(fields)(prediction, truth, mask, metadata)
    return {name: value.double().numpy() for name, value in found.items()}


def frames(seed: int) -> Tensor:
    return torch.randn(2, 5, 2, *GRID, generator=torch.Generator().manual_seed(seed)) + 2.0


def both(seed: int = 0) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
    prediction, truth = frames(seed), frames(seed + 1)
    return prediction, truth, prediction.double().numpy(), truth.double().numpy()


def test_errors_of_frames_are_those_of_numpy() -> None:
    prediction, truth, p, t = both()
    mse = ((p - t) ** 2).mean((3, 4))
    expected = {
        Normalised(): np.sqrt(mse / (t**2).mean((3, 4))).mean(2),
        VarianceScaled(): np.sqrt(mse / (t.var((3, 4)) + 1e-7)).mean(2),
        Maximum(): np.abs(p - t).max((3, 4)).mean(2),
    }
    for metric, values in expected.items():
        (found,) = measured(metric, prediction, truth).values()
        np.testing.assert_allclose(found, values, rtol=1e-5)
    edge = np.ones(GRID, bool)
    edge[1:-1, 1:-1] = False
    (found,) = measured(Boundary(), prediction, truth).values()
    np.testing.assert_allclose(found, np.sqrt(((p - t)[..., edge] ** 2).mean(-1)).mean(2), rtol=1e-5)


def test_correlation_is_that_of_numpy_and_a_constant_channel_is_left_out() -> None:
    prediction, truth, p, t = both()
    expected = [
        [np.mean([np.corrcoef(p[b, f, c].ravel(), t[b, f, c].ravel())[0, 1] for c in range(2)]) for f in range(5)]
        for b in range(2)
    ]
    np.testing.assert_allclose(measured(Pearson(), prediction, truth)["correlation"], expected, atol=1e-6)
    truth[:, :, 1] = 3.25
    alone = [[np.corrcoef(p[b, f, 0].ravel(), t[b, f, 0].ravel())[0, 1] for f in range(5)] for b in range(2)]
    np.testing.assert_allclose(measured(Pearson(), prediction, truth)["correlation"], alone, atol=1e-6)
    truth[:] = 3.25
    assert all(np.isnan(value).all() for value in measured(Pearson(), prediction, truth).values())


def test_the_valid_time_ends_with_the_first_bad_frame() -> None:
    truth = frames(1)
    prediction = truth.clone()
    prediction[0, 3] = -truth[0, 3]  # and well again afterwards, which does not count
    found = measured(Pearson(), prediction, truth)
    assert found["valid_time"].tolist() == [3.0, 5.0]
    assert found["correlation"][0].tolist() == pytest.approx([1, 1, 1, -1, 1])
    prediction[1, 1:] = torch.nan
    found = measured(Pearson(), prediction, truth)
    assert found["valid_time"].tolist() == [3.0, 1.0]
    assert found["correlation"][1].tolist() == pytest.approx([1, 0, 0, 0, 0])
    mask = MASK.expand(2, 5, 2, *GRID).clone()
    mask[1, 1:] = 0  # the trajectory ends there
    assert measured(Pearson(), prediction, truth, mask)["valid_time"].tolist() == [3.0, 1.0]
    assert measured(Pearson(threshold=-1.0), truth, truth)["valid_time"].tolist() == [5.0, 5.0]


@pytest.mark.parametrize(("waves", "band"), [(0, "low"), (3, "low"), (4, "mid"), (9, "mid"), (12, "high")])
def test_a_wave_is_an_error_of_its_band(waves: int, band: str) -> None:
    truth = torch.zeros(1, 1, 2, *GRID)
    wave = torch.cos(2 * torch.pi * waves * torch.arange(GRID[0]) / GRID[0])[:, None].expand(*GRID)
    found = measured(Fourier(), truth + wave, truth)
    for name, value in found.items():
        expected = float(wave.square().mean().sqrt()) if name == f"fourier_{band}" else 0.0
        assert value.item() == pytest.approx(expected, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), low=st.integers(1, 6), more=st.integers(0, 8))
def test_bands_add_up_to_the_whole_error(seed: int, low: int, more: int) -> None:
    prediction, truth = frames(seed)[:, :, :1], frames(seed + 1)[:, :, :1]
    metadata = attrs.evolve(METADATA, channels=("h",), predicted=("h",), conserved={})
    found = measured(Fourier(low=low, high=low + more), prediction, truth, MASK[:, :, :1], metadata)
    whole = rmse(prediction, truth, MASK[:, :, :1], metadata)["rmse"].double().numpy()
    np.testing.assert_allclose(np.sqrt(sum(value**2 for value in found.values())), whole, rtol=1e-5)


def test_what_is_conserved_is_compared_by_its_density() -> None:
    truth = torch.ones(1, 1, 2, *GRID)
    truth[:, :, 1] = torch.where(torch.arange(GRID[0])[:, None] < GRID[0] // 2, 2.0, -2.0)  # no momentum in sum
    prediction = truth.clone()
    prediction[:, :, 0] += 0.1  # mass 10 % more; momentum 1.1 of 2 and of -2
    assert measured(Conservation(), prediction, truth)["conservation"].item() == pytest.approx(0.05, rel=1e-5)
    prediction[:, :, 1] += 0.2
    expected = (0.1 + 1.1 * 0.2 / 2) / 2
    assert measured(Conservation(), prediction, truth)["conservation"].item() == pytest.approx(expected, rel=1e-5)
    nothing = attrs.evolve(METADATA, conserved={})
    assert np.isnan(measured(Conservation(), prediction, truth, metadata=nothing)["conservation"]).all()


def test_bands_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="low = 9 is above high = 5"):
        Fourier(low=9, high=5)


def test_all_of_them_are_measured_in_one_run(experiment: Path, cli: Call) -> None:
    every = ("relative_l2", "rmse", "nrmse", "vrmse", "max_error", "boundary_error", "fourier", "correlation")
    tables = ",".join(f"{{type='{name}'}}" for name in (*every, "conservation"))
    done = cli("run", experiment, "--set", f"metrics=[{tables}]", "--set", "trainer.steps=2")
    assert done.code == 0, done.errors
    assert "nan" not in done.output
    (report,) = experiment.parent.rglob("report.json")
    values = json.loads(report.read_text())["datasets"][0]["values"]
    for forecast in values.values():
        squares = sum(forecast[f"fourier_{band}"]["frames"][0] ** 2 for band in ("low", "mid", "high"))
        assert forecast["rmse"]["frames"][0] > 0
        assert squares > 0
        assert 0 <= forecast["valid_time"]["mean"] <= len(forecast["rmse"]["frames"])
        assert np.isnan(forecast["conservation"]["mean"])  # nothing is declared
    assert RootMeanSquare().name in values["model"]
