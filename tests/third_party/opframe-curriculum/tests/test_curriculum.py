"""Which windows are open, and how often they come."""

from __future__ import annotations

from collections import Counter

import pytest
from opframe_curriculum import Curriculum

from opframe_registry import ConfigError, Population

POPULATIONS = (Population(starts=(8, 1, 20), weight=1.0), Population(starts=(4,), weight=3.0))


def test_windows_open_step_by_step_up_to_the_last_one() -> None:
    order = Curriculum(begin=0.25, steps=100).build(POPULATIONS)

    def latest(step: int) -> int:
        return max(window.start for window in order(0, step, 4000) if (window.dataset, window.trajectory) == (0, 2))

    assert [latest(step) for step in (0, 50, 100, 5000)] == [4, 12, 19, 19]


def test_every_window_lies_in_its_trajectory_and_comes_in_the_end() -> None:
    order = Curriculum(steps=1).build(POPULATIONS)
    drawn = {(window.dataset, window.trajectory, window.start) for window in order(0, 1, 8000)}
    wanted = {
        (dataset, trajectory, start)
        for dataset, population in enumerate(POPULATIONS)
        for trajectory, starts in enumerate(population.starts)
        for start in range(starts)
    }
    assert drawn == wanted


def test_datasets_come_by_their_weights() -> None:
    counts = Counter(window.dataset for window in Curriculum().build(POPULATIONS)(3, 7, 8000))
    assert counts[1] / 8000 == pytest.approx(0.75, abs=0.02)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    order = Curriculum().build(POPULATIONS)
    batch = order(1, 2, 16)
    order(5, 9, 7)
    assert order(1, 2, 16) == batch == Curriculum().build(POPULATIONS)(1, 2, 16)
    assert batch != order(1, 3, 16)
    assert batch != order(2, 2, 16)


def test_a_dataset_without_a_window_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"datasets\[1\]"):
        Curriculum().build((POPULATIONS[0], Population(starts=(), weight=1.0)))
