"""Samplers that are broken on purpose: each is caught by the name of the promise that it breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from attrs import frozen

from opframe_registry import Population, Sampler, Window
from opframe_registry.testing import Case
from opframe_registry.testing.helper import Helper
from opframe_registry.testing.promise import broken_promises_of

Weights = Callable[[Sequence[float], int, int], Sequence[float]]
"""The chances of datasets, from their weights, the seed and the step."""


def by_weight(weights: Sequence[float], seed: int, step: int) -> Sequence[float]:
    return weights


def evenly(weights: Sequence[float], seed: int, step: int) -> Sequence[float]:
    """Weights need not be heeded."""
    return [1.0] * len(weights)


def in_turns(weights: Sequence[float], seed: int, step: int) -> Sequence[float]:
    """One dataset is preferred for ten steps, then the next: shares change in time, but not in the long run."""
    return [weight * (5.0 if step // 10 % len(weights) == number else 1.0) for number, weight in enumerate(weights)]


def by_seed(weights: Sequence[float], seed: int, step: int) -> Sequence[float]:
    """Seeds prefer a dataset."""
    return [weight * (1.3 if seed % len(weights) == number else 1.0) for number, weight in enumerate(weights)]


def absolute(weights: Sequence[float], seed: int, step: int) -> Sequence[float]:
    """As if weights were shares."""
    return [min(weight, 10.0) for weight in weights]


def inverse(weights: Sequence[float], seed: int, step: int) -> Sequence[float]:
    """The heavier, the rarer."""
    return [1.0 / weight for weight in weights]


@frozen(kw_only=True)
class Drawn(Sampler):
    """Draws a dataset by some function of the weights, then a trajectory, then a start."""

    name: ClassVar[str] = "drawn"
    rule: str = "by_weight"
    whole_batches: bool = False

    def build(self, populations: Sequence[Population]) -> Callable[[int, int, int], list[Window]]:
        chances: Weights = globals()[self.rule]
        weights = [population.weight for population in populations]

        def order(seed: int, step: int, size: int) -> list[Window]:
            random = np.random.default_rng([seed, step])
            shares = np.array(chances(weights, seed, step))
            datasets = random.choice(len(shares), 1 if self.whole_batches else size, p=shares / shares.sum())
            return [_window(int(number), populations, random) for number in np.resize(datasets, size)]

        return order


def _window(number: int, populations: Sequence[Population], random: np.random.Generator) -> Window:
    starts = populations[number].starts
    trajectory = int(random.integers(len(starts)))
    return Window(number, trajectory, int(random.integers(starts[trajectory])))


SALT = {"here": hash("a word, whose hash is another one in every process")}


@frozen(kw_only=True)
class Salted(Drawn):
    """Draws other windows in every process."""

    name: ClassVar[str] = "salted"

    def build(self, populations: Sequence[Population]) -> Callable[[int, int, int], list[Window]]:
        order, salt = super().build(populations), SALT["here"] % 2**32
        return lambda seed, step, size: order(seed ^ salt, step, size)


@pytest.fixture(scope="module")
def helper() -> Iterator[Helper]:
    """One process for all."""
    with Helper() as helper:
        yield helper


def broken(sampler: Sampler, folder: Path, helper: Helper) -> Mapping[str, object]:
    return broken_promises_of(Case(component=sampler, folder=folder, helper=helper))


@pytest.mark.parametrize("rule", ["by_weight", "evenly", "in_turns"])
@pytest.mark.parametrize("whole_batches", [False, True])
def test_a_good_one_breaks_no_promise_however_its_draws_hang_together(
    rule: str, whole_batches: bool, tmp_path: Path, helper: Helper
) -> None:
    assert broken(Drawn(rule=rule, whole_batches=whole_batches), tmp_path, helper) == {}


@pytest.mark.parametrize(
    ("rule", "promise"),
    [
        ("by_seed", "every_seed_has_the_same_shares"),
        ("absolute", "weights_are_relative"),
        ("inverse", "more_weight_is_no_smaller_share"),
    ],
)
def test_a_broken_one_is_caught_by_what_its_shares_are(rule: str, promise: str, tmp_path: Path, helper: Helper) -> None:
    assert promise in broken(Drawn(rule=rule), tmp_path, helper)


def test_one_that_differs_from_process_to_process_is_caught(tmp_path: Path, helper: Helper) -> None:
    assert list(broken(Salted(), tmp_path, helper)) == ["any_number_of_processes_share_a_batch"]
