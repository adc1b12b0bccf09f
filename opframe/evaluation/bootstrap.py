"""How sure a mean over trajectories is: the bootstrap (Efron, 1979)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The middle 95 % of the means of samples with replacement, by percentiles, always of the same samples.

    NaN counts for nothing. None: there are fewer than two values, or one is infinite.
    """
    known = np.asarray([value for value in values if not np.isnan(value)], np.float64)
    if len(known) < 2 or not np.isfinite(known).all():
        return None
    drawn = np.random.default_rng(0).integers(len(known), size=(RESAMPLES, len(known)))
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(known[drawn].mean(1), (outside, 1 - outside))
    return float(low), float(high)
