"""Optimizers are torch's; schedules have the curve that they promise, also when resumed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from opframe_optimizers import (
    Adam,
    AdamW,
    Constant,
    CosineRestarts,
    InverseSquareRoot,
    Linear,
    OneCycle,
    Step,
)
from opframe_registry import Optimizer, Schedule
from opframe_registry.testing import broken_promises

PEAK = 2e-3
SCHEDULES = (
    OneCycle(),
    OneCycle(cycle_momentum=False, warmup=0.5, div_factor=25.0),
    Step(),
    Linear(warmup=0.1, final=0.05),
    CosineRestarts(cycles=2, growth=2),
    InverseSquareRoot(),
    Constant(),
)


def optimizer_for(schedule: Schedule, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = Adam(learning_rate=PEAK).build([{"params": [nn.Parameter(torch.ones(2))]}])
    return optimizer, schedule.build(optimizer, steps)


def curve(
    optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler, steps: int
) -> list[tuple[float, float]]:
    """Learning rate and beta1 of each of the next steps."""
    used = []
    for _ in range(steps):
        group = optimizer.param_groups[0]
        used.append((group["lr"], group["betas"][0]))
        optimizer.step()
        scheduler.step()
    return used


def rates(schedule: Schedule, steps: int) -> list[float]:
    """Learning rates of a run, relative to the peak."""
    return [rate / PEAK for rate, _ in curve(*optimizer_for(schedule, steps), steps)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_whatever_its_settings_a_schedule_keeps_the_promises_of_its_kind(schedule: Schedule, tmp_path: Path) -> None:
    assert not broken_promises(schedule, tmp_path)
    assert all(max(rates(schedule, steps)) <= 1 + 1e-9 for steps in (1, 2, 3, 4, 5, 10, 100))


def test_one_cycle_rises_for_the_warm_up_and_ends_at_the_bottom() -> None:
    used = rates(OneCycle(warmup=0.2, div_factor=100.0, final_div_factor=10.0), 100)
    assert used[0] == pytest.approx(1 / 100)
    assert used[19] == pytest.approx(1.0)
    assert used[99] == pytest.approx(1 / 1000)
    assert used[:20] == sorted(used[:20])
    assert used[19:] == sorted(used[19:], reverse=True)


def test_one_cycle_moves_beta1_against_the_learning_rate_unless_told_otherwise() -> None:
    moving = [beta for _, beta in curve(*optimizer_for(OneCycle(), 100), 100)]
    assert (moving[0], moving[19], moving[99]) == pytest.approx((0.95, 0.85, 0.95))
    still = [beta for _, beta in curve(*optimizer_for(OneCycle(cycle_momentum=False), 100), 100)]
    assert set(still) == {0.9}


def test_step_drops_at_equal_intervals() -> None:
    used = rates(Step(drops=3, factor=0.1), 100)
    assert [used[index] for index in (0, 24, 25, 49, 50, 74, 75, 99)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )


def test_linear_rises_to_the_peak_and_falls_to_its_end() -> None:
    used = rates(Linear(warmup=0.1, final=0.2), 100)
    assert used[0] == pytest.approx(1 / 11)
    assert used[10] == pytest.approx(1.0)
    assert used[99] == pytest.approx(0.2)
    assert used[54] + used[55] == pytest.approx(1.2, abs=0.02)


def test_cosine_restarts_begin_every_cycle_at_the_peak() -> None:
    used = rates(CosineRestarts(cycles=2, growth=3, final=0.1), 100)
    assert (used[0], used[25]) == pytest.approx((1.0, 1.0))
    assert used[24] == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * 24 / 25)))
    assert used[99] < 0.11


def test_inverse_square_root_peaks_at_the_end_of_the_warm_up() -> None:
    used = rates(InverseSquareRoot(warmup=0.25), 100)
    assert used[0] == pytest.approx(1 / 25)
    assert used[24] == pytest.approx(1.0)
    assert used[99] == pytest.approx(0.5)


def test_constant_never_changes() -> None:
    assert set(rates(Constant(), 20)) == {1.0}


@pytest.mark.parametrize(
    ("optimizer", "reference"),
    [
        (Adam(learning_rate=0.01), torch.optim.Adam),
        (AdamW(learning_rate=0.01, betas=(0.8, 0.9), weight_decay=0.1), torch.optim.AdamW),
    ],
    ids=["adam", "adamw"],
)
def test_updates_are_those_of_the_plain_torch_optimizer(optimizer: Any, reference: Any) -> None:
    ours, theirs = (nn.Parameter(torch.linspace(-1, 2, 7)) for _ in range(2))
    one = optimizer.build([{"params": [ours]}])
    settings = {"lr": 0.01, "betas": optimizer.betas, "weight_decay": optimizer.weight_decay, "eps": optimizer.epsilon}
    two = reference([theirs], **settings, fused=False, foreach=False)
    for step in range(5):
        for weight, torch_optimizer in ((ours, one), (theirs, two)):
            weight.grad = torch.sin(weight.detach() + step)
            torch_optimizer.step()
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=0)


def test_adam_defaults_are_the_published_ones() -> None:
    group = Adam().build([{"params": [nn.Parameter(torch.ones(1))]}]).param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-3, (0.9, 0.9), 1e-6)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Adam(betas=(0.9, 1.0)), "betas"),
        (lambda: Adam(weight_decay=-1.0), "weight_decay"),
        (lambda: AdamW(learning_rate=-1.0), "learning_rate"),
        (lambda: OneCycle(warmup=1.0), "warmup"),
        (lambda: Step(factor=0.0), "factor"),
        (lambda: CosineRestarts(cycles=0), "cycles"),
    ],
)
def test_impossible_settings_are_named(make: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        make()


def test_weights_of_several_devices_do_not_ask_for_the_fused_kernel() -> None:
    weights = [nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1, device="meta"))]
    optimizers: list[Optimizer] = [Adam(), AdamW()]
    assert [optimizer.build([{"params": weights}]).defaults["fused"] for optimizer in optimizers] == [False, False]
