"""What a schedule promises."""

from __future__ import annotations

import copy
from math import isfinite
from typing import Any, cast

import torch
from torch import nn

from opframe_registry.components import Schedule
from opframe_registry.testing.promise import Case, Promise, PromiseError, require

_STEPS = 50


def _begun(case: Case, steps: int = _STEPS) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    groups: list[dict[str, Any]] = [
        {"params": [nn.Parameter(torch.ones(2))], "lr": 0.1},
        {"params": [nn.Parameter(torch.ones(2))]},
    ]
    optimizer = torch.optim.Adam(groups, lr=0.02)  # which has a momentum, too, for a schedule to move
    return optimizer, cast("Schedule", case.component).build(optimizer, steps)


def _rates(case: Case, steps: int = _STEPS) -> list[list[float]]:
    optimizer, schedule = _begun(case, steps)
    found = []
    for _ in range(steps):
        found.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return found


def it_lasts_all_steps(case: Case) -> None:
    """It can be stepped once after each step, with rates that are finite and not below zero."""
    for step, rates in enumerate(_rates(case)):
        right = all(isfinite(rate) and rate >= 0 for rate in rates)
        require(right, f"at step {step} the rates are {rates}")


def runs_of_any_length_are_lasted(case: Case) -> None:
    """A run may have a single step, a few, or a thousand; the rates are finite, not below zero, and not all zero."""
    for steps in (1, 2, 3, 4, 5, 7, 10, 100, 1000):
        try:
            found = [rate for rates in _rates(case, steps) for rate in rates]
        except Exception as error:
            raise PromiseError(f"a run of {steps} steps raises {type(error).__name__}: {error}") from error
        wrong = [rate for rate in found if not (isfinite(rate) and rate >= 0)]
        require(not wrong, f"in a run of {steps} steps there is the rate {wrong[:1]}")
        require(any(found), f"in a run of {steps} steps every rate is 0")


def the_learning_rate_is_the_peak(case: Case) -> None:
    """The highest rate of each group is the one that it was given."""
    rates = _rates(case)
    for group, expected in enumerate((0.1, 0.02)):
        highest = max(each[group] for each in rates)
        near = abs(highest - expected) <= 0.05 * expected
        require(near, f"the highest rate of a group with the rate {expected} is {highest:.4g}")


def its_state_is_all_that_it_keeps(case: Case) -> None:
    """With the state dict of another, a schedule goes on with the same rates, and the same momenta if it moves them."""
    for at in (1, 7, 20, _STEPS - 1):
        optimizer, schedule = _begun(case)
        _steps(optimizer, schedule, at)
        other, resumed = _begun(case)
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        resumed.load_state_dict(copy.deepcopy(schedule.state_dict()))
        expected, found = _steps(optimizer, schedule, _STEPS - at), _steps(other, resumed, _STEPS - at)
        differing = next((pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]), None)
        if differing is not None:
            raise PromiseError(f"one resumed after {at} steps has {differing[0]}, expected {differing[1]}")


def _steps(
    optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler, count: int
) -> list[list[dict[str, Any]]]:
    """What the groups have, without their parameters, after each of some steps."""
    found = []
    for _ in range(count):
        optimizer.step()
        schedule.step()
        groups = optimizer.param_groups
        found.append([{name: value for name, value in group.items() if name != "params"} for group in groups])
    return found


PROMISES: tuple[Promise, ...] = (
    it_lasts_all_steps,
    runs_of_any_length_are_lasted,
    the_learning_rate_is_the_peak,
    its_state_is_all_that_it_keeps,
)
