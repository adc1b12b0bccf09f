"""Backbones that are broken on purpose, in what masks, conditions and the key `normalize` change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

from opframe_registry import Backbone, Conditions, Fields, Prediction
from opframe_registry.testing import Case, broken_promises
from opframe_registry.testing.backbone import conditions_are_used_or_ignored
from opframe_registry.testing.helper import Helper


class Net(nn.Module):
    """A weighted mean of what it sees, with conditions; `fault` says what is wrong with it."""

    def __init__(self, fields: Fields, fault: str, normalize: bool) -> None:
        super().__init__()
        self.fields, self.fault, self.normalize = fields, fault, normalize
        self.mix = nn.Linear(fields.history * len(fields.channels), fields.horizon * len(fields.channels))
        self.step = nn.Parameter(torch.ones(1))
        self.scale = nn.Parameter(torch.ones(1)) if normalize else None

    def forward(self, window: Tensor, conditions: Conditions) -> Prediction:
        seen = window.flatten(1, 2).movedim(1, -1)
        field = self.mix(seen).movedim(-1, 1).unflatten(1, (self.fields.horizon, len(self.fields.channels))).float()
        field = field + self._of_conditions(conditions).view(-1, *[1] * (field.ndim - 1))
        if self.scale is not None:
            field = self._normalised(field, window)
        return Prediction(field=field)

    def _of_conditions(self, conditions: Conditions) -> Tensor:
        known = conditions.time_step.isfinite()
        if self.fault == "half" and not known.all() and known.any():
            known = torch.ones_like(known)  # all or nothing
        told = torch.where(known, conditions.time_step, self.step)
        if self.fault == "mean":
            told = told.mean().expand(len(told))  # of the batch
        if self.fault == "valid":
            told = told / conditions.valid.float().mean().floor()
        if self.fault == "dataset":
            told = told + torch.where(conditions.dataset < 0, torch.nan, 0.0)
        return told

    def _normalised(self, field: Tensor, window: Tensor) -> Tensor:
        assert self.scale is not None
        if self.fault == "shape":
            return field.double()
        if self.fault == "spread":
            return field * self.scale * window.std()  # of the batch
        if self.fault == "break":
            torch._dynamo.graph_break()
        if self.fault == "gradient":
            return field * self.scale.detach()
        return field * self.scale


@frozen(kw_only=True)
class Mean(Backbone):
    """A weighted mean of frames."""

    name: ClassVar[str] = "mean"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"mix": ("mix.*",), "told": ("step", "scale")}
    fault: str = ""

    def build(self, fields: Fields) -> nn.Module:
        return Net(fields, self.fault, self.normalize)


class Partial(Mean):
    """Forgets a part of what `normalize` adds."""

    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"mix": ("mix.*",), "told": ("step",)}


UNABLE = {"a_tiny_problem_is_overfitted"}
"""What a weighted mean cannot."""


def test_a_good_one_breaks_no_promise_and_its_conditions_are_named(tmp_path: Path) -> None:
    assert broken_promises(Mean(), tmp_path).keys() <= UNABLE
    case = Case(component=Mean(), folder=tmp_path, helper=Helper())
    conditions_are_used_or_ignored(case)
    assert case.facts == ["of the conditions it uses time_step"]


@pytest.mark.parametrize(
    ("fault", "promise"),
    [
        ("half", "conditions_are_used_or_ignored"),
        ("valid", "conditions_are_used_or_ignored"),
        ("dataset", "conditions_are_used_or_ignored"),
        ("mean", "samples_do_not_influence_each_other"),
        ("spread", "samples_do_not_influence_each_other"),
        ("shape", "predictions_have_the_shape_of_the_fields"),
        ("break", "a_training_step_compiles_to_one_graph"),
        ("gradient", "gradients_reach_the_inputs_and_every_parameter"),
    ],
)
def test_a_broken_one_is_caught_by_the_promise(fault: str, promise: str, tmp_path: Path) -> None:
    assert promise in broken_promises(Mean(fault=fault), tmp_path)


def test_parts_are_those_with_normalize(tmp_path: Path) -> None:
    assert "parts_are_the_whole" in broken_promises(Partial(), tmp_path)
