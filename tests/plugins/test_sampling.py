"""Samplers draw what they say, and the same for the same address."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opframe_registry import ConfigError, Population, Sampler, Window
from opframe_sampling import Balanced, Proportional

SAMPLERS = (Balanced(), Proportional())
UNEVEN = (
    Population(starts=(4,) * 3, weight=1.0),
    Population(starts=(10,) * 50, weight=3.0),
    Population(starts=(1,) * 1, weight=0.5),
    Population(starts=(1, 6, 24), weight=1.5),
)

alike = st.builds(lambda count, starts: (starts,) * count, st.integers(1, 10_000), st.integers(1, 500))
differing = st.lists(st.integers(1, 500), min_size=1, max_size=30).map(tuple)
populations = st.lists(
    st.builds(Population, starts=alike | differing, weight=st.floats(1e-3, 1e3)),
    min_size=1,
    max_size=6,
)
addresses = st.tuples(st.integers(0, 2**63), st.integers(0, 10**9), st.integers(1, 40))


def assert_frequencies(counts: Counter[object], shares: dict[object, float]) -> None:
    """Chi-square of the counts is below what chance exceeds once in about 10⁶ times."""
    total = counts.total()
    assert set(counts) <= set(shares)
    chi_square = sum((counts[key] - total * share) ** 2 / (total * share) for key, share in shares.items())
    freedom = max(len(shares) - 1, 1)
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5 + 15


def draws(sampler: Sampler, steps: int = 400, size: int = 64) -> list[Window]:
    order = sampler.build(UNEVEN)
    return [window for step in range(steps) for window in order(7, step, size)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
@given(populations, addresses)
@settings(max_examples=50, deadline=None)
def test_every_window_lies_within_its_dataset(
    sampler: Sampler, datasets: list[Population], address: tuple[int, int, int]
) -> None:
    windows = sampler.build(datasets)(*address)
    assert len(windows) == address[2]
    for window in windows:
        assert 0 <= window.trajectory < datasets[window.dataset].trajectories
        assert 0 <= window.start < datasets[window.dataset].starts[window.trajectory]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_other_steps_and_seeds_draw_other_windows(sampler: Sampler) -> None:
    order = sampler.build(UNEVEN)
    assert len({tuple(order(seed, step, 16)) for seed in range(5) for step in range(5)}) == 25


def test_balanced_draws_datasets_by_weight_whatever_their_size() -> None:
    counts = Counter[object](window.dataset for window in draws(Balanced()))
    assert_frequencies(counts, {0: 1 / 6, 1: 3 / 6, 2: 0.5 / 6, 3: 1.5 / 6})


def test_balanced_draws_trajectories_and_starts_uniformly() -> None:
    drawn = [window for window in draws(Balanced()) if window.dataset == 1]
    assert_frequencies(Counter(window.trajectory for window in drawn), dict.fromkeys(range(50), 1 / 50))
    assert_frequencies(Counter(window.start for window in drawn), dict.fromkeys(range(10), 1 / 10))


def test_balanced_draws_trajectories_uniformly_and_then_their_own_starts_where_lengths_differ() -> None:
    drawn = [window for window in draws(Balanced()) if window.dataset == 3]
    shares = {(number, start): 1 / 3 / count for number, count in enumerate((1, 6, 24)) for start in range(count)}
    assert_frequencies(Counter[object]((window.trajectory, window.start) for window in drawn), dict(shares))


def test_proportional_draws_every_window_equally_often() -> None:
    counts = Counter[object]((w.dataset, w.trajectory, w.start) for w in draws(Proportional()))
    windows = [
        (dataset, trajectory, start)
        for dataset, population in enumerate(UNEVEN)
        for trajectory in range(population.trajectories)
        for start in range(population.starts[trajectory])
    ]
    assert_frequencies(counts, dict.fromkeys(windows, 1 / len(windows)))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_a_dataset_without_windows_is_refused_by_its_place(sampler: Sampler) -> None:
    short = Population(starts=(), weight=1.0)
    with pytest.raises(ConfigError, match=r"datasets\[1\] has no window"):
        sampler.build([UNEVEN[0], short])
