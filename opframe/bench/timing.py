"""Timing calls, in turns where several are compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median, quantiles

import torch
from attrs import frozen

Call = Callable[[], object]
Clock = Callable[[], float]

_FEWEST = 3
"""Rounds of what is slow."""

_QUEUED = 10
"""Calls that a GPU is given before it is waited for, as in training."""


@frozen(kw_only=True)
class Spread:
    """Median and quartiles of values, and how many there are."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles."""
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return Spread(median=median(values), low=low, high=high, count=len(values))


def in_turns(
    calls: Sequence[Call], seconds: float, device: torch.device, clock: Clock = time.perf_counter
) -> list[list[float]]:
    """Seconds of every call by round: [call][round], as `rounds` has them."""
    return rounds([partial(timed, call, device, clock) for call in calls], seconds)


def rounds(timers: Sequence[Callable[[], float]], seconds: float) -> list[list[float]]:
    """What every timer gives by round: [timer][round].

    There are rounds for as many seconds, three at least, after one that does not count. Every other round goes
    backwards, so that none is always the one that comes after another.
    """
    places = list(range(len(timers)))
    found: list[list[float]] = []
    began = time.perf_counter()
    while len(found) <= _FEWEST or time.perf_counter() - began < seconds:
        times = [0.0] * len(timers)
        for place in places if len(found) % 2 else reversed(places):
            times[place] = timers[place]()
        found.append(times)
        if len(found) == 1:
            began = time.perf_counter()
    return [list(column) for column in zip(*found[1:], strict=True)]


def timed(call: Call, device: torch.device, clock: Clock = time.perf_counter) -> float:
    """Mean seconds of a call."""
    each = _QUEUED if device.type == "cuda" else 1
    wait(device)
    began = clock()
    for _ in range(each):
        call()
    wait(device)
    return (clock() - began) / each


def wait(device: torch.device) -> None:
    """Wait for what the device has been given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
