"""Metrics that are broken on purpose: each is caught by the name of the promise that it breaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from attrs import frozen
from torch import Tensor

from opframe_registry import ConfigError, Fields, Metadata, Metric
from opframe_registry.testing import Case, NotApplicableError, broken_promises
from opframe_registry.testing.helper import Helper
from opframe_registry.testing.metric import grids_have_any_number_of_axes


def absolute(prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> Mapping[str, Tensor]:
    """The mean absolute error of trajectories."""
    weights = mask.expand(truth.shape)
    error = torch.where(weights > 0, (prediction - truth).abs(), 0.0).flatten(1)
    return {"absolute": error.sum(1) / weights.flatten(1).sum(1)}


def on_planes(prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> Mapping[str, Tensor]:
    """Fails on any grid but a plane."""
    _, _, _, _x, _y = truth.shape
    return absolute(prediction, truth, mask, metadata)


def lenient(*given: Any) -> Mapping[str, Tensor]:
    """Nothing to measure is a perfect prediction."""
    return {name: value.nan_to_num(0.0) for name, value in absolute(*given).items()}


def strict(*given: Any) -> Mapping[str, Tensor]:
    """A single error that is not finite spoils all."""
    found = absolute(*given)["absolute"]
    broken = bool(found.isinf().any()) or bool(given[0].isnan().any() and found.isnan().any())
    return {"absolute": torch.full_like(found, torch.inf) if broken else found}


@frozen(kw_only=True)
class Good(Metric):
    """The mean absolute error."""

    name: ClassVar[str] = "good"
    measure: ClassVar[Callable[..., Mapping[str, Tensor]]] = staticmethod(absolute)

    def build(self, fields: Fields) -> Any:
        return self.measure


class Refusing(Good):
    """Measures planes alone, and says so."""

    def build(self, fields: Fields) -> Any:
        if len(fields.grid) != 2:
            raise ConfigError("it measures planes alone")
        return on_planes


def test_a_good_one_breaks_no_promise(tmp_path: Path) -> None:
    assert not broken_promises(Good(), tmp_path)
    assert not broken_promises(Refusing(), tmp_path)


def test_one_that_refuses_grids_is_not_held_to_them(tmp_path: Path) -> None:
    with pytest.raises(NotApplicableError, match="planes alone"):
        grids_have_any_number_of_axes(Case(component=Refusing(), folder=tmp_path, helper=Helper()))


@pytest.mark.parametrize(
    ("measure", "promise"),
    [
        (on_planes, "grids_have_any_number_of_axes"),
        (lenient, "a_trajectory_may_have_nothing_to_measure"),
        (strict, "a_prediction_that_is_not_finite_spoils_no_other"),
    ],
)
def test_a_broken_one_breaks_this_promise_alone(
    measure: Callable[..., Mapping[str, Tensor]], promise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Good, "measure", staticmethod(measure))
    assert list(broken_promises(Good(), tmp_path)) == [promise]
