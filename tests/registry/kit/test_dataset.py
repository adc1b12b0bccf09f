"""Datasets that are broken on purpose: each is caught by the name of the promise that it breaks."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from attrs import define, evolve, frozen
from numpy.typing import NDArray

from opframe_registry import DataError, Dataset, Metadata, Split
from opframe_registry.testing import broken_promises

METADATA = Metadata(
    trajectories=4,
    frames=6,
    grid=(4, 5),
    channels=("u", "v"),
    predicted=("u",),
    lengths=(6, 4, 5, 6),
    parameters={"viscosity": (0.1, 0.2, 0.3, 0.4), "density": (1.0,)},
)


@define
class Frames:
    """Frames that are computed. Trajectories have their `lengths` whatever the metadata say."""

    metadata: Metadata
    lengths: tuple[int, ...] = METADATA.lengths
    offset: float = 0.0

    def read(self, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
        if not (0 <= trajectory < len(self.lengths) and 0 <= start < stop <= self.lengths[trajectory]):
            raise DataError(f"trajectory {trajectory} has no frames {start}..{stop}")
        numbers = self.offset + 10 * trajectory + np.arange(start, stop)
        return np.broadcast_to(numbers[:, None, None, None], (stop - start, 2, 4, 5)).astype("f4")


@frozen(kw_only=True)
class Good(Dataset):
    """Frames that are computed."""

    name: ClassVar[str] = "good"

    def build(self, split: Split, cache: Path) -> Frames:
        return Frames(METADATA)


class Padded(Good):
    """Gives what pads shorter trajectories for frames of them."""

    def build(self, split: Split, cache: Path) -> Frames:
        return Frames(METADATA, lengths=(6, 6, 6, 6))


class Boastful(Good):
    """Says that a trajectory is longer than it is."""

    def build(self, split: Split, cache: Path) -> Frames:
        return Frames(METADATA, lengths=(6, 4, 3, 6))


class Changing(Good):
    """Has a channel more for the test."""

    def build(self, split: Split, cache: Path) -> Frames:
        return Frames(METADATA if split == "train" else evolve(METADATA, predicted=("u", "v")))


class Unparametrised(Good):
    """Has a parameter for half of the trajectories."""

    def build(self, split: Split, cache: Path) -> Frames:
        return Frames(evolve(METADATA, parameters={"viscosity": (0.1, 0.2)}))


class Drawn(Good):
    """Has other numbers in every object."""

    def build(self, split: Split, cache: Path) -> Frames:
        return Frames(METADATA, offset=float(np.random.default_rng().random()))


class OfTheProcess(Good):
    """Is known by the process that asks."""

    def identity(self, *given: Any, **named: Any) -> Any:
        return evolve(super().identity(*given, **named), numbers={"process": os.getpid()})


class Unwritable(Good):
    """Is known by what no file of JSON holds."""

    def identity(self, *given: Any, **named: Any) -> Any:
        return evolve(super().identity(*given, **named), numbers={"frames": {1, 2}})


def test_a_good_one_breaks_no_promise(tmp_path: Path) -> None:
    assert not broken_promises(Good(), tmp_path)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Padded, "beyond_the_end_is_refused"),
        (Boastful, "every_trajectory_is_as_long_as_said"),
        (Changing, "splits_have_the_same_channels"),
        (Unparametrised, "parameters_are_those_of_all_or_of_each"),
        (Drawn, "what_is_opened_again_is_the_same"),
        (OfTheProcess, "its_identity_can_be_kept"),
        (Unwritable, "its_identity_can_be_kept"),
    ],
)
def test_a_broken_one_is_caught_by_the_name_of_the_promise(broken: type[Good], promise: str, tmp_path: Path) -> None:
    assert promise in broken_promises(broken(), tmp_path)


def test_a_window_that_takes_more_than_a_minute_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count(step=1000.0)
    monkeypatch.setattr("opframe_registry.testing.dataset.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("opframe_registry.testing.dataset._windows", lambda metadata, count=12: [(0, 0, 1)])
    assert "the_cost_of_a_window_is_known" in broken_promises(Good(), tmp_path)
