"""Schedules that are broken on purpose: each is caught by the name of the promise that it breaks."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from attrs import frozen

from opframe_registry import Schedule
from opframe_registry.testing import broken_promises


@frozen(kw_only=True)
class Good(Schedule):
    """Falls linearly."""

    name: ClassVar[str] = "good"

    def factor(self, step: int, steps: int) -> float:
        return 1 - step / steps

    def build(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.factor(step, steps))


class NeedsTwo(Good):
    """Divides by one step less than there are."""

    def factor(self, step: int, steps: int) -> float:
        return 1 - step / (steps - 1) if step < steps else 0.0


class Slow(Good):
    """Has rates of zero in runs that are short."""

    def factor(self, step: int, steps: int) -> float:
        return min(step / 5, 1.0)


class Below(Good):
    """Falls below zero where a run is long."""

    def factor(self, step: int, steps: int) -> float:
        return 1 - step / 100


class Forgetful(Good):
    """Moves the momentum by a count of its own, which is not in its state."""

    def build(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        calls = count()

        def factor(step: int) -> float:
            for group in optimizer.param_groups:
                group["betas"] = (0.9 / (1 + next(calls)), 0.999)
            return self.factor(step, steps)

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def test_one_that_forgets_its_momentum_breaks_this_promise_alone(tmp_path: Path) -> None:
    assert list(broken_promises(Forgetful(), tmp_path)) == ["its_state_is_all_that_it_keeps"]


def test_a_good_one_breaks_no_promise(tmp_path: Path) -> None:
    assert not broken_promises(Good(), tmp_path)


@pytest.mark.parametrize("broken", [NeedsTwo, Slow, Below])
def test_a_broken_one_breaks_this_promise_alone(broken: type[Good], tmp_path: Path) -> None:
    assert list(broken_promises(broken(), tmp_path)) == ["runs_of_any_length_are_lasted"]
