"""Trajectories that are evaluated together: what a forecast is given, what is true, and where it counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from opframe.mixture.conditions import changed, conditions_of
from opframe.mixture.source import Source, read_frames, read_known
from opframe_registry import Conditions, Fields


@frozen(kw_only=True, eq=False)
class Examples:
    """Some trajectories of a dataset, on a device, as a model sees them.

    `history` is (B, T_in, C, *grid) and `future` (B, T, C, *grid); `source.physical` restores the units of data that
    are normalised. Of `future` the first `lengths` frames of each trajectory are there, the last one repeated up to T.
    `known` (B, T, C, *grid) is false where the truth misses a value; None: it is there everywhere.
    """

    history: Tensor
    future: Tensor
    conditions: Conditions
    lengths: tuple[int, ...]
    known: Tensor | None = None

    @property
    def frames(self) -> int:
        """How many are to be predicted."""
        return max(self.lengths)

    def there(self) -> Tensor | None:
        """(B, T), false beyond the end of a trajectory that is shorter than others; None where all are as long."""
        if min(self.lengths) == self.frames:
            return None
        device = self.future.device
        return torch.arange(self.frames, device=device) < torch.tensor(self.lengths, device=device)[:, None]

    def counted(self, mask: Tensor) -> Tensor:
        """Where an error counts, (B or 1, T or 1, C, *grid): where `mask` (C, *grid) says so, and there is a value."""
        counted = mask[None, None]
        if self.known is not None:
            counted = counted * self.known
        there = self.there()
        if there is not None:
            counted = counted * there.view(*there.shape, *[1] * mask.ndim)
        return counted


def read_examples(
    source: Source, trajectories: Sequence[int], lengths: Sequence[int], fields: Fields, device: torch.device
) -> Examples:
    """Read trajectories with so many frames to be predicted of each. Raises DataError."""
    history, stop = fields.history, fields.history + max(lengths)
    stops = [history + length for length in lengths]
    if source.metadata.missing is None:  # nothing is asked where every value is there
        read = [read_frames(source, index, 0, own, fields) for index, own in zip(trajectories, stops, strict=True)]
        frames, known = torch.stack([_continued(own, stop) for own in read]), None
    else:
        both = [read_known(source, index, 0, own, fields) for index, own in zip(trajectories, stops, strict=True)]
        frames, known = (torch.stack([_continued(own, stop) for own in each]) for each in zip(*both, strict=True))
    there = None if known is None else known[:, :history]
    conditions = conditions_of([source] * len(trajectories), trajectories, fields, there)
    frames = frames.to(device)
    return Examples(
        history=frames[:, :history],
        future=frames[:, history:],
        conditions=changed(conditions, lambda tensor: tensor.to(device)),
        lengths=tuple(lengths),
        known=None if known is None else known[:, history:].to(device),
    )


def _continued(frames: Tensor, stop: int) -> Tensor:
    """Frames (T, C, *grid) with the last one repeated until there are so many."""
    if len(frames) == stop:
        return frames
    return torch.cat([frames, frames[-1:].expand(stop - len(frames), *frames.shape[1:])])
