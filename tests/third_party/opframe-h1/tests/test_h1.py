"""The Sobolev error against numbers worked out by hand."""

from __future__ import annotations

from math import nan, pi, sqrt

import pytest
import torch
from opframe_h1 import RelativeH1
from opframe_h1.loss import relative_h1
from torch import Tensor, nn

from opframe_registry import Batch, Boundary, Conditions, ConfigError, Fields, Prediction

FIELDS = Fields(channels=("u",), grid=(8, 8), history=2)


def conditions(samples: int, grid: tuple[int, int] = (8, 8), boundary: Boundary = Boundary.PERIODIC) -> Conditions:
    return Conditions(
        parameters=torch.empty(samples, 0),
        time_step=torch.full((samples,), nan),
        spacing=torch.full((samples, 2), nan),
        boundary=torch.full((samples, 2, 2), int(boundary)),
        valid=torch.ones(1, 1, *grid, dtype=torch.bool),
        dataset=torch.zeros(samples, dtype=torch.int64),
    )


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


class Scaled(nn.Module):
    """Predicts the last frame times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, window: Tensor, conditions: Conditions) -> Prediction:
        return Prediction(field=self.weight * window[:, -1:], penalties={"size": self.weight})


def batch(frames: int = 1, mask: Tensor | None = None) -> Batch:
    return Batch(
        inputs=random(3, 2, 1, 8, 8),
        targets=random(3, frames, 1, 8, 8),
        mask=torch.ones(3, 1, 1, 8, 8) if mask is None else mask,
        conditions=conditions(3),
        seeds=torch.arange(3),
    )


def test_the_error_of_a_wave_is_that_of_its_amplitude_and_its_slope() -> None:
    points, weight = 64, 0.01
    x = torch.arange(points) / points
    truth = torch.sin(2 * pi * x)[:, None].expand(points, points)[None, None, None]
    wrong = truth + 0.1 * torch.sin(2 * pi * 4 * x)[:, None]
    error = relative_h1(wrong, truth, torch.ones(1), conditions(1, (points, points)), weight)

    def squared(waves: int) -> float:  # a difference of sines over h has 2 sin(π k h) / h in place of 2 π k
        slope = 2 * points * torch.sin(torch.tensor(pi * waves / points))
        return float(1 + weight * slope**2)

    assert float(error) == pytest.approx(0.1 * sqrt(squared(4) / squared(1)), rel=1e-4)


def test_without_a_gradient_it_is_the_relative_l2_error() -> None:
    prediction, truth = random(2, 3, 1, 8, 8), random(2, 3, 1, 8, 9)[..., :8]
    expected = (prediction - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)
    torch.testing.assert_close(relative_h1(prediction, truth, torch.ones(1), conditions(2), 0.0), expected)


def test_nothing_is_a_neighbour_beyond_an_end_that_is_not_periodic() -> None:
    truth = torch.zeros(1, 1, 1, 8, 8)
    truth[..., :] = torch.arange(8.0)  # grows along y, and falls where the ends would meet
    prediction = truth.roll(1, 3) + 1.0  # an error that is the same everywhere has no slope
    error = relative_h1(prediction, truth, torch.ones(1), conditions(1, boundary=Boundary.WALL), 1.0)
    slopes = 8 * 7 * 8.0**2  # 8 rows of 7 differences of 1 over 1/8
    assert float(error) == pytest.approx(sqrt(64 / (float(truth.square().sum()) + slopes)), rel=1e-5)
    torus = relative_h1(prediction, truth, torch.ones(1), conditions(1), 1.0)
    assert float(torus) == pytest.approx(sqrt(64 / (float(truth.square().sum()) + slopes + 8 * 56.0**2)), rel=1e-5)


def test_what_is_masked_costs_nothing_not_even_by_its_slope() -> None:
    prediction, truth = random(2, 1, 1, 8, 8), random(2, 1, 1, 8, 10)[..., :8]
    mask = torch.ones(1, 1, 1, 8, 8)
    mask[..., 2:5, 3:6] = 0
    expected = relative_h1(prediction, truth, mask, conditions(2), 0.1)
    hidden = torch.where(mask.bool(), prediction, nan).requires_grad_()
    error = relative_h1(hidden, torch.where(mask.bool(), truth, nan), mask, conditions(2), 0.1)
    assert torch.equal(error, expected)
    error.sum().backward()
    assert hidden.grad is not None
    assert (hidden.grad[:, :, :, 2:5, 3:6] == 0).all()
    assert hidden.grad.isfinite().all()
    assert (relative_h1(prediction, truth, torch.zeros(1), conditions(2), 0.1) == 0).all()


def test_a_perfect_prediction_costs_nothing_and_has_a_finite_gradient() -> None:
    truth = random(2, 1, 1, 8, 8)
    prediction = truth.clone().requires_grad_()
    error = relative_h1(prediction, truth, torch.ones(1), conditions(2), 0.1).sum()
    error.backward()
    assert float(error.detach()) == 0
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()


def test_a_roll_out_feeds_back_what_is_valid_and_adds_the_errors() -> None:
    model, two = Scaled(), batch(frames=2)
    losses = RelativeH1(frames=2, penalty_weight=0.5).build(FIELDS)(model, two)
    first = 0.5 * two.inputs[:, -1:]
    parts = [
        relative_h1(field, two.targets[:, step : step + 1], two.mask, two.conditions, 0.01).mean()
        for step, field in enumerate((first, 0.5 * first))
    ]
    torch.testing.assert_close(losses["relative_h1"], sum(parts, torch.zeros(())))
    assert float(losses["size"]) == 0.5
    losses["relative_h1"].backward()
    assert model.weight.grad is not None
    assert model.weight.grad != 0


def test_frames_that_are_no_multiple_of_the_horizon_are_refused() -> None:
    with pytest.raises(ConfigError, match="no multiple"):
        RelativeH1(frames=3).build(Fields(channels=("u",), grid=(8, 8), history=2, horizon=2))
