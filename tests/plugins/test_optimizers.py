"""Optimizers are torch's, or what their paper says; schedules have the curve that they promise, also when resumed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conftest import Command
from opframe_optimizers import (
    Adam,
    AdamW,
    Constant,
    CosineRestarts,
    Cyclic,
    InverseSquareRoot,
    Lamb,
    Linear,
    Muon,
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
    Cyclic(cycles=3),
    Cyclic(mode="triangular2", rise=0.2),
    Cyclic(mode="exp_range", decay=0.99),
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


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_cyclic_has_the_curve_of_torch(mode: Any) -> None:
    steps, cycles, lowest, up, decay = 60, 3, 0.2, 8, 0.98
    schedule = Cyclic(cycles=cycles, lowest=lowest, rise=0.4, mode=mode, decay=decay)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=PEAK)
    theirs = torch.optim.lr_scheduler.CyclicLR(
        optimizer, lowest * PEAK, PEAK, step_size_up=up, step_size_down=12, mode=mode, gamma=decay, cycle_momentum=False
    )
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"] / PEAK)
        optimizer.step()
        theirs.step()
    if mode == "exp_range":  # torch counts from the first step, so that no cycle comes up to the peak
        expected = [lowest + (rate - lowest) / decay ** min(step, up) for step, rate in enumerate(expected)]
    assert rates(schedule, steps) == pytest.approx(expected, rel=1e-6)


def lamb_by_hand(weight: list[float], gradients: list[list[float]], settings: Lamb) -> list[float]:
    """The formulas, written out for one weight at a time."""
    mean, square = [0.0] * len(weight), [0.0] * len(weight)
    (first, second), (least, largest) = settings.betas, settings.bounds
    for step, gradient in enumerate(gradients, 1):
        update = []
        for index, (w, g) in enumerate(zip(weight, gradient, strict=True)):
            mean[index] = first * mean[index] + (1 - first) * g
            square[index] = second * square[index] + (1 - second) * g * g
            one, two = (1 - first**step, 1 - second**step) if settings.debias else (1.0, 1.0)
            update.append(mean[index] / one / (math.sqrt(square[index] / two) + settings.epsilon))
            update[-1] += settings.weight_decay * w
        length, size = (math.sqrt(sum(x * x for x in values)) for values in (update, weight))
        ratio = min(max(size, least), largest) / length if length and size else 1.0
        weight = [w - settings.learning_rate * ratio * r for w, r in zip(weight, update, strict=True)]
    return weight


def lamb_trained(weight: torch.Tensor, gradients: torch.Tensor, settings: Lamb) -> torch.Tensor:
    weight = weight.clone().requires_grad_()
    optimizer = settings.build([{"params": [weight]}])
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("settings", [{}, {"bounds": (0.0, 0.5)}, {"bounds": (20.0, 30.0)}, {"debias": False}])
def test_lamb_does_what_its_paper_says(settings: dict[str, Any]) -> None:
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    gradients = torch.tensor([[0.1, 0.2, -3.0], [1.0, 0.0, 0.1], [-2.0, 1.0, 0.3]], dtype=torch.float64)
    lamb = Lamb(learning_rate=0.1, weight_decay=0.3, **settings)
    expected = torch.tensor(lamb_by_hand(weight.tolist(), gradients.tolist(), lamb), dtype=torch.float64)
    torch.testing.assert_close(lamb_trained(weight, gradients, lamb), expected, rtol=1e-12, atol=0)


def test_a_complex_weight_is_a_pair_of_real_ones_to_lamb_and_zeros_begin_to_move() -> None:
    weight, gradients = torch.randn(4, 2), torch.randn(3, 4, 2)
    pairs = lamb_trained(torch.view_as_complex(weight), torch.view_as_complex(gradients), Lamb())
    torch.testing.assert_close(torch.view_as_real(pairs), lamb_trained(weight, gradients, Lamb()))
    assert lamb_trained(torch.zeros(3), torch.ones(1, 3), Lamb(learning_rate=0.1)).abs().min() > 0
    assert torch.equal(lamb_trained(torch.ones(3), torch.zeros(1, 3), Lamb(weight_decay=0.0)), torch.ones(3))


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
        (lambda: Cyclic(rise=1.0), "rise"),
        (lambda: Lamb(bounds=(2.0, 1.0)), "bounds"),
        (lambda: Lamb(bounds=(0.0, 0.0)), "bounds"),
    ],
)
def test_impossible_settings_are_named(make: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        make()


def test_weights_of_several_devices_do_not_ask_for_the_fused_kernel() -> None:
    weights = [nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1, device="meta"))]
    optimizers: list[Optimizer] = [Adam(), AdamW()]
    assert [optimizer.build([{"params": weights}]).defaults["fused"] for optimizer in optimizers] == [False, False]


@pytest.mark.parametrize(("scale", "theirs"), [("rms", "match_rms_adamw"), ("shape", "original")])
def test_muon_is_that_of_torch_for_matrices_and_adamw_for_the_rest(scale: Any, theirs: str) -> None:
    muon = pytest.importorskip("torch.optim._muon", reason="torch before 2.9 has no Muon").Muon
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "wide": (6, 9),
        "tall": (12, 5),
        "point": (7, 4, 1, 1),
        "kernel": (4, 3, 2, 2),
        "bias": (5,),
        "row": (1, 8),
    }
    start = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    start["complex"] = torch.randn(3, 3, dtype=torch.complex64, generator=generator)
    ours = {name: nn.Parameter(value.clone()) for name, value in start.items()}
    settings = Muon(learning_rate=0.02, weight_decay=0.1, scale=scale)
    optimizer = settings.build([{"params": list(ours.values())}])
    matrices = {name: nn.Parameter(start[name].flatten(1).clone()) for name in ("wide", "tall", "point")}
    others = {name: nn.Parameter(value.clone()) for name, value in start.items() if name not in matrices}
    expected = muon(list(matrices.values()), lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn=theirs)
    rest = torch.optim.AdamW(list(others.values()), lr=0.02, weight_decay=0.1)
    for _ in range(4):
        for name, weight in ours.items():
            weight.grad = torch.randn(weight.shape, dtype=weight.dtype, generator=generator)
            same = matrices[name] if name in matrices else others[name]
            same.grad = weight.grad.reshape(same.shape).clone()
        for each in (optimizer, expected, rest):
            each.step()
    for name, value in {**matrices, **others}.items():
        torch.testing.assert_close(ours[name].detach().reshape(value.shape), value.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.fault
def test_muon_of_shards_makes_the_steps_of_whole_weights(experiment: Path, opframe: Command) -> None:
    runs = {}
    for strategy, processes in (("ddp", 1), ("fsdp", 2)):
        run = experiment.parent / strategy
        words = ("optimizer.type=muon", f"parallel.strategy={strategy}", f"run.folder={run}", "trainer.log_every=1")
        settings = [word for each in words for word in ("--set", each)]
        done = opframe("run", experiment, "--nproc", processes, *settings)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        runs[strategy] = [line["relative_l2"] for line in lines if line["kind"] == "train"]
    assert runs["fsdp"] == pytest.approx(runs["ddp"], rel=1e-2)  # singular vectors are found in bfloat16
