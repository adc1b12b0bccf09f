"""Optimizers that are broken on purpose: each is caught by the name of the promise that it breaks."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from attrs import frozen

from opframe_registry import Optimizer
from opframe_registry.testing import broken_promises


@frozen(kw_only=True)
class Good(Optimizer):
    """Descent with momentum."""

    name: ClassVar[str] = "good"

    def build(self, parameters: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.learning_rate, momentum=0.5)


class MatricesAlone(Good):
    """Leaves parameters of one axis out."""

    def build(self, parameters: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        return super().build(
            [{**group, "params": [each for each in group["params"] if each.ndim > 1]} for group in parameters]
        )


class FirstRate(torch.optim.SGD):
    """Goes on with the rate that it began with."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["lr"] = group.setdefault("first", group["lr"])
        return super().step(closure)


class Deaf(Good):
    """Does not hear of a schedule."""

    def build(self, parameters: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        return FirstRate(parameters, lr=self.learning_rate)


class Exact(torch.optim.SGD):
    """Counts steps in fractions."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["done"] = group.get("done", Fraction(0)) + Fraction(1, 3)
        return super().step(closure)


class Unsaved(Good):
    """Has a state that no checkpoint takes."""

    def build(self, parameters: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        return Exact(parameters, lr=self.learning_rate)


def test_a_good_one_breaks_no_promise(tmp_path: Path) -> None:
    assert not broken_promises(Good(), tmp_path)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (MatricesAlone, "every_parameter_comes_nearer"),
        (Deaf, "a_rate_that_changes_is_heeded"),
        (Unsaved, "its_state_can_be_saved"),
    ],
)
def test_a_broken_one_is_caught_by_the_name_of_the_promise(broken: type[Good], promise: str, tmp_path: Path) -> None:
    assert promise in broken_promises(broken(), tmp_path)
