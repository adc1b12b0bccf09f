"""Which of the windows that training read hold values that no arithmetic in float32 survives."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from attrs import evolve

from opframe.mixture.loading import Plan, Windows
from opframe.mixture.source import Source, read_frames
from opframe_registry import Window

LARGEST = 1e12
"""Its square is 1e24, and a sum of squares over a field of 3-D data then nears float32's largest number, 3e38."""
_BATCHES = 32  # that are read again at most


def extreme_window(windows: Windows, plan: Plan, steps: range) -> str | None:
    """The first window of the global batches of some steps whose values are beyond `LARGEST`, in words, or None.

    At most the first 32 batches are looked at.
    """
    for window in _windows(plan, steps[:_BATCHES]):
        source = windows.sources[window.dataset]
        stop = window.start + windows.fields.history + windows.frames
        seen = read_frames(source, window.trajectory, window.start, stop, windows.fields)
        own = seen[:, : len(source.metadata.channels)].abs()
        if own.max() > LARGEST:
            return _words(source, window, own)
    return None


def _windows(plan: Plan, steps: range) -> Iterator[Window]:
    """The windows of all processes."""
    for samples in evolve(plan, rank=0, ranks=1, first=steps.start, last=steps.stop):
        yield from (sample.window for sample in samples)


def _words(source: Source, window: Window, seen: torch.Tensor) -> str:
    frame, channel = divmod(int(seen.flatten(2).amax(2).argmax()), seen.shape[1])
    number, where = source.number(window.trajectory), (window.start + frame) * source.stride
    return (
        f"{source.title}: trajectory {number} reaches {seen.max():.3g} in frame {where}, channel "
        f"'{source.metadata.channels[channel]}', as the network is given it, which float32 cannot square and sum up; "
        f"leave it out by exclude = [{number}] if it is wrong ('opframe data check' finds all), or give the data in "
        'other units, as [normalizer] type = "dataset" does'
    )
