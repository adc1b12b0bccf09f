"""How sure a mean over trajectories is: the bootstrap (Efron, 1979)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
_AT_ONCE = 10**6  # values that are drawn at a time


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The middle 95 % of the means of samples with replacement, by percentiles, always of the same samples.

    NaN counts for nothing. None: there are fewer than two values, or one is infinite.
    """
    known = np.asarray([value for value in values if not np.isnan(value)], np.float64)
    if len(known) < 2 or not np.isfinite(known).all():
        return None
    random, count = np.random.default_rng(0), len(known)
    few = max(1, min(RESAMPLES, _AT_ONCE // count))  # of a large set, so that its samples fit into memory
    rounds = [min(few, RESAMPLES - begin) for begin in range(0, RESAMPLES, few)]
    means = np.concatenate([known[random.integers(count, size=(size, count))].mean(1) for size in rounds])
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (outside, 1 - outside))
    return float(low), float(high)
