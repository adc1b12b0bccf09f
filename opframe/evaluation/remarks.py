"""What a person is to know of data before believing what is measured on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from opframe.console import counted as in_words
from opframe.mixture.source import Source
from opframe_registry import Split

_SHOWN = 5  # trajectories that a remark names
_TINY = 1e-8


def senseless_frames(truth: Tensor, counted: Tensor) -> Tensor:
    """In how many frames (B, C) the truth (B, T, C, *grid) is zero everywhere that counts, or too large to be squared.

    An error relative to it says nothing. `counted` (B or 1, T or 1, C, *grid) is zero where nothing counts.
    """
    size = (truth * counted).square().sum(tuple(range(3, truth.ndim))).sqrt()
    senseless = ((size <= _TINY) | ~size.isfinite()) & counted.flatten(3).any(3)
    return senseless.sum(1, dtype=torch.int32).cpu()


def senseless_remarks(source: Source, split: Split, frames: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """What to say of each channel of some of whose trajectories so many frames are zero everywhere, or too large."""
    remarks = []
    for index, channel in enumerate(source.metadata.channels):
        counts = {number: counts[index] for number, counts in enumerate(frames) if counts[index]}
        if not counts:
            continue
        shown = _some(f"{source.number(each)} ({count} of {source.rollout_of(each)})" for each, count in counts.items())
        remarks.append(
            f"{source.title}: the true '{channel}' is zero everywhere, or too large to be squared, in frames of "
            f"{in_words(len(counts), f'{split} trajectory')}: {shown}. A relative error says nothing there, and "
            "where it is a number the means above contain it."
        )
    return tuple(remarks)


def too_short(source: Source) -> tuple[str, ...]:
    """What to say where trajectories end with their history."""
    if not source.short:
        return ()
    shown = _some(map(str, source.short))
    return (
        f"{source.title}: {in_words(len(source.short), 'trajectory')} too short to be predicted after {source.history} "
        f"frames of history, and not evaluated: {shown}.",
    )


def _some(items: Iterable[str]) -> str:
    """The first few, and how many there are beside them."""
    every = list(items)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
