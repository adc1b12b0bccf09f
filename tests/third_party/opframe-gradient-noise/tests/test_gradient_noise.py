"""The noise, its size and its repetition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from attrs import define, field
from opframe_gradient_noise import GradientNoise
from opframe_gradient_noise.noise import Noise
from torch import Tensor, nn


@define
class Standing:
    """Training that stands still: what a callback sees of it."""

    backbone: nn.Module
    step: int = 0
    steps: int = 100
    seed: int = 3
    optimizer: torch.optim.Optimizer = field(init=False)
    losses: Mapping[str, Tensor] = field(factory=dict)
    logged: list[tuple[int, Mapping[str, float]]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.optimizer = torch.optim.SGD(self.backbone.parameters())

    def log(self, values: Mapping[str, float]) -> None:
        self.logged.append((self.step, values))

    def stop(self, reason: str) -> None: ...

    def interrupt(self, reason: str) -> None: ...


def training() -> Standing:
    network = nn.ParameterList([torch.zeros(100, 100), torch.zeros(4000, dtype=torch.complex64), torch.zeros(3)])
    return Standing(network)


def made(**settings: Any) -> Noise:
    callback = GradientNoise(**settings).build()
    assert isinstance(callback, Noise)
    return callback


def noise(callback: Noise, training: Standing) -> list[Tensor]:
    """What is added to gradients of zeros."""
    real, complex_, frozen = training.backbone.parameters()
    real.grad, complex_.grad = torch.zeros_like(real), torch.zeros_like(complex_)
    callback.after_backward(training)
    assert frozen.grad is None
    return [real.grad, complex_.grad]


def test_its_variance_is_the_published_one_and_falls() -> None:
    callback, standing = made(eta=0.3, gamma=0.55), training()
    for step in range(30):
        standing.step = step
        for gradient in noise(callback, standing):
            parts = torch.view_as_real(gradient) if gradient.is_complex() else gradient
            assert float(parts.var()) == pytest.approx(0.3 / (1 + step) ** 0.55, rel=0.08)
            assert abs(float(parts.mean())) < 0.03


def test_it_is_added() -> None:
    standing = training()
    drawn, weight = noise(made(), standing)[0], next(standing.backbone.parameters())
    weight.grad = torch.ones_like(weight)
    made().after_backward(standing)
    torch.testing.assert_close(weight.grad, 1 + drawn)


def test_it_is_a_function_of_seed_and_step() -> None:
    standing = training()
    first = noise(made(), standing)
    torch.manual_seed(17)  # the program's own numbers have no part in it
    assert all(torch.equal(one, two) for one, two in zip(first, noise(made(), training()), strict=True))
    standing.step = 1
    assert not torch.equal(first[0], noise(made(), standing)[0])
    standing.step, standing.seed = 0, 4
    assert not torch.equal(first[0], noise(made(), standing)[0])


def test_it_goes_on_from_its_state() -> None:
    callback, standing = made(), training()
    for step in range(5):
        standing.step = step
        noise(callback, standing)
    resumed = made()
    resumed.load_state_dict(dict(callback.state_dict()))
    standing.step = 5
    assert resumed.deviation() == callback.deviation() < made().deviation()
    assert torch.equal(noise(resumed, standing)[0], noise(callback, standing)[0])


def test_its_deviation_is_logged_now_and_then() -> None:
    callback, standing = made(eta=0.25, log_every=4), training()
    for step in range(9):
        standing.step = step
        noise(callback, standing)
    assert [step for step, _ in standing.logged] == [0, 4, 8]
    assert standing.logged[0][1] == {"gradient_noise": 0.5}
