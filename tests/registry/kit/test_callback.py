"""Callbacks that are broken on purpose: each is caught by the name of the promise that it breaks."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from attrs import frozen

from opframe_registry import Callback, Training
from opframe_registry.testing import broken_promises


class Patient:
    """Stops after a number of evaluations, and logs how many there were."""

    def __init__(self) -> None:
        self.seen = 0

    def after_evaluation(self, training: Training, scores: Mapping[str, float]) -> None:
        self.seen += 1
        training.log({"seen": self.seen})
        if self.seen == 20:
            training.stop("there were twenty")

    def state_dict(self) -> Mapping[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]


class Forgetful(Patient):
    """Counts anew, and asks for the end later."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing."""

    def after_evaluation(self, training: Training, scores: Mapping[str, float]) -> None:
        self.seen += 1
        if self.seen == 20:
            training.stop("there were twenty")


class Miscounting(Patient):
    """Logs at the same steps, but other numbers."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing."""

    def after_evaluation(self, training: Training, scores: Mapping[str, float]) -> None:
        self.seen += 1
        training.log({"seen": self.seen})


class Drawing(Patient):
    """Draws from the numbers of torch."""

    def before_step(self, training: Training) -> None:
        torch.rand(())


class DrawingPlainly(Patient):
    """Draws from the numbers of Python."""

    def before_step(self, training: Training) -> None:
        random.random()


class Seeding(Patient):
    """Seeds the numbers of NumPy."""

    def before_training(self, training: Training) -> None:
        np.random.seed(training.seed)  # noqa: NPY002


class Expecting(Patient):
    """Says at the end what only an evaluation brings."""

    def after_training(self, training: Training) -> None:
        training.log({"mean": 1 / self.seen})


class Stepping:
    """Has no point of an evaluation."""

    def after_step(self, training: Training) -> None:
        """Nothing."""


@frozen(kw_only=True)
class Good(Callback):
    """Stops after twenty evaluations."""

    name: ClassVar[str] = "good"
    made: ClassVar[type] = Patient

    def build(self) -> object:
        return self.made()


def broken(class_: type, needs_evaluation: bool = False) -> Good:
    """A callback that makes an object of this class."""

    @frozen(kw_only=True)
    class Broken(Good):
        """Is broken."""

        made: ClassVar[type] = class_

    Broken.needs_evaluation = needs_evaluation
    return Broken()


def test_a_good_one_breaks_no_promise(tmp_path: Path) -> None:
    assert not broken_promises(Good(), tmp_path)


@pytest.mark.parametrize(
    ("callback", "promise"),
    [
        (broken(Forgetful), "a_resumed_training_is_asked_the_same"),
        (broken(Miscounting), "a_resumed_training_is_asked_the_same"),
        (broken(Drawing), "its_random_numbers_are_its_own"),
        (broken(DrawingPlainly), "its_random_numbers_are_its_own"),
        (broken(Seeding), "its_random_numbers_are_its_own"),
        (broken(Expecting), "it_needs_evaluations_only_if_it_says_so"),
        (broken(Stepping, needs_evaluation=True), "it_needs_evaluations_only_if_it_says_so"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.made.__name__,
)
def test_a_broken_one_is_caught_by_the_name_of_the_promise(callback: Good, promise: str, tmp_path: Path) -> None:
    found = broken_promises(callback, tmp_path)
    assert found.keys() - {"its_settings_are_a_value"} == {promise}  # a class in a function does not pickle
