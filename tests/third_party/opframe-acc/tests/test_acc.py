"""Correlations worked out by hand, and what does not count."""

from __future__ import annotations

from math import nan
from pathlib import Path

import numpy as np
import pytest
import torch
from opframe_acc import AnomalyCorrelation
from torch import Tensor

from opframe_registry import DataError, Fields, Location, Metadata

FIELDS = Fields(channels=("u", "v"), grid=(4, 4), history=2)
METADATA = Metadata(trajectories=3, frames=9, grid=(4, 4), channels=("u", "v"), predicted=("u", "v"))


def fields(seed: int = 0) -> Tensor:
    return torch.randn(3, 5, 2, 4, 4, generator=torch.Generator().manual_seed(seed))


def measured(prediction: Tensor, truth: Tensor, mask: Tensor, **settings: Location) -> Tensor:
    metric = AnomalyCorrelation(climatology=settings).build(FIELDS)
    values = metric(prediction, truth, mask, METADATA)
    assert list(values) == ["anomaly_correlation"]
    return values["anomaly_correlation"]


def test_it_is_the_correlation_of_the_departures_from_the_mean() -> None:
    truth, prediction = fields(), fields(1)
    values = measured(prediction, truth, torch.ones(1))
    usual = truth.mean(1, keepdim=True)
    p, a = (prediction - usual)[1, 2], (truth - usual)[1, 2]
    by_channel = [float((p[c] * a[c]).sum() / (p[c].norm() * a[c].norm())) for c in (0, 1)]
    assert values.shape == (3, 5)
    assert float(values[1, 2]) == pytest.approx(sum(by_channel) / 2, abs=1e-5)


def test_it_is_one_for_a_perfect_prediction_and_minus_one_for_its_mirror() -> None:
    truth = fields()
    mirrored = 2 * truth.mean(1, keepdim=True) - truth
    torch.testing.assert_close(measured(truth, truth, torch.ones(1)), torch.ones(3, 5, dtype=torch.float64))
    torch.testing.assert_close(measured(mirrored, truth, torch.ones(1)), -torch.ones(3, 5, dtype=torch.float64))


def test_what_does_not_count_changes_nothing() -> None:
    truth, prediction = fields(), fields(1)
    mask = torch.ones(3, 5, 2, 4, 4)
    mask[:, :, :, 1] = 0  # land
    mask[:, :, 1] = 0  # a channel that is not predicted
    mask[0, 3:] = 0  # beyond the end of a trajectory
    hidden = torch.where(mask.bool(), prediction, nan), torch.where(mask.bool(), truth, nan)
    values = measured(*hidden, mask)
    assert values[0, 3:].isnan().all()
    assert values[0, :3].isfinite().all()
    torch.testing.assert_close(values, measured(prediction, truth, mask), equal_nan=True, rtol=0, atol=0)
    alone = measured(prediction[:1, :3, :1], truth[:1, :3, :1], mask[:1, :3, :1])
    torch.testing.assert_close(values[:1, :3], alone)


def test_a_truth_that_never_departs_has_nothing_to_measure() -> None:
    assert measured(fields(), torch.ones(3, 5, 2, 4, 4), torch.ones(1)).isnan().all()


def test_every_trajectory_is_measured_alone() -> None:
    truth, prediction = fields(), fields(1)
    together = measured(prediction, truth, torch.ones(1))
    for index in range(3):
        one = slice(index, index + 1)
        assert torch.equal(measured(prediction[one], truth[one], torch.ones(1)), together[one])


def test_a_file_says_what_is_usual(tmp_path: Path) -> None:
    usual = np.random.default_rng(0).normal(size=(4, 4)).astype("f4")
    np.save(tmp_path / "u.npy", usual)
    truth, prediction = fields(), fields(1)
    mask = torch.tensor([1.0, 0.0]).view(1, 1, 2, 1, 1)
    values = measured(prediction, truth, mask, u=Location(str(tmp_path / "u.npy")))
    p, a = prediction[0, 0, 0] - torch.from_numpy(usual), truth[0, 0, 0] - torch.from_numpy(usual)
    assert float(values[0, 0]) == pytest.approx(float((p * a).sum() / (p.norm() * a.norm())), abs=1e-5)


def test_a_file_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'u' at .*gone"):
        measured(fields(), fields(), torch.ones(1), u=Location(str(tmp_path / "gone.npy")))
    np.save(tmp_path / "u.npy", np.zeros((3, 3), "f4"))
    with pytest.raises(DataError, match=r"'u' is \(3, 3\), but that of the prediction is \(4, 4\)"):
        measured(fields(), fields(), torch.ones(1), u=Location(str(tmp_path / "u.npy")))
