"""Many datasets on one grid: resizing, channel slots, masks (the DPOT data protocol)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from attrs import evolve, frozen
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, pad

from opframe_registry import ConfigError, DataError, Dataset, Fields, Metadata, Population, Trajectories

_RESIZING = {1: "linear", 2: "bilinear", 3: "trilinear"}


@frozen(kw_only=True)
class Source:
    """One opened dataset of the mixture, of which every `stride`-th frame is used.

    `metadata` and everything that counts frames speaks of those.
    """

    title: str
    weight: float
    rollout: int
    trajectories: Trajectories
    stride: int = 1

    @property
    def metadata(self) -> Metadata:
        return thinned(self.trajectories.metadata, self.stride)

    def read(self, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
        """Frames [start, stop) of one trajectory, shape (T, C, *native grid)."""
        last = (stop - 1) * self.stride + 1
        return self.trajectories.read(trajectory, start * self.stride, last)[:: self.stride]

    def population(self, frames: int) -> Population:
        """How many windows of `frames` frames there are."""
        return Population(
            trajectories=self.metadata.trajectories, starts=self.metadata.frames - frames + 1, weight=self.weight
        )


def thinned(metadata: Metadata, stride: int) -> Metadata:
    """The metadata of every `stride`-th frame."""
    step = metadata.time_step and metadata.time_step * stride
    return evolve(metadata, frames=(metadata.frames - 1) // stride + 1, time_step=step)


def open_source(component: Dataset, trajectories: Trajectories, history: int, frames: int) -> Source:
    """Check that a dataset is long enough for the windows and the roll-out. Raises DataError."""
    metadata = thinned(trajectories.metadata, component.stride)
    if metadata.frames < history + frames:
        raise DataError(
            f"{component.title}: trajectories have {metadata.frames} frames, but a window takes {history + frames} "
            f"({history} of history and {frames} to predict); lower data.history, objective.frames or its stride"
        )
    rollout = component.rollout or metadata.frames - history
    if history + rollout > metadata.frames:
        raise DataError(
            f"{component.title}: rollout = {rollout} after {history} frames of history takes {history + rollout} "
            f"frames, but trajectories have {metadata.frames}"
        )
    return Source(
        title=component.title,
        weight=component.weight,
        rollout=rollout,
        trajectories=trajectories,
        stride=component.stride,
    )


def channel_slots(sources: Sequence[Source], width: int | None = None) -> tuple[str, ...]:
    """The channel axis of the mixture, as wide as its widest dataset; a slot's name joins what it holds.

    Raises ConfigError if a dataset has more channels than a `width` that is given.
    """
    widest = max(sources, key=lambda source: len(source.metadata.channels))
    if width is not None and width < len(widest.metadata.channels):
        raise ConfigError(
            f"data.channels = {width}, but {widest.title} has {len(widest.metadata.channels)} channels: "
            f"{', '.join(widest.metadata.channels)}"
        )
    slots: list[dict[str, None]] = [{} for _ in range(width or len(widest.metadata.channels))]
    for source in sources:
        for slot, name in zip(slots, source.metadata.channels, strict=False):
            slot[name] = None
    return tuple("/".join(slot) or f"unused_{index}" for index, slot in enumerate(slots))


def read_frames(source: Source, trajectory: int, start: int, stop: int, fields: Fields) -> Tensor:
    """Frames on the mixture's grid and channels, (T, C, *grid) float32. Raises DataError if not finite."""
    frames = source.read(trajectory, start, stop)
    if not np.isfinite(frames).all():
        raise _not_finite(source, trajectory, start, frames)
    return pad_channels(resize(torch.from_numpy(np.ascontiguousarray(frames)), fields.grid), len(fields.channels))


def _not_finite(source: Source, trajectory: int, start: int, frames: NDArray[np.float32]) -> DataError:
    """Where the first value that is not finite lies, in the numbering of the file."""
    frame, channel, *point = (int(index) for index in np.argwhere(~np.isfinite(frames))[0])
    return DataError(
        f"{source.title}: trajectory {trajectory} holds {frames[(frame, channel, *point)]} in frame "
        f"{(start + frame) * source.stride}, channel '{source.metadata.channels[channel]}', "
        f"at grid point {tuple(point)}"
    )


def resize(frames: Tensor, grid: tuple[int, ...]) -> Tensor:
    """(T, C, *native) to (T, C, *grid) by linear interpolation with half-pixel centres."""
    if tuple(frames.shape[2:]) == grid:
        return frames
    return interpolate(frames, size=grid, mode=_RESIZING[len(grid)], align_corners=False)


def pad_channels(frames: Tensor, channels: int) -> Tensor:
    """(T, c, *grid) to (T, C, *grid); channels that a dataset does not have are 1."""
    missing = channels - frames.shape[1]
    return frames if missing == 0 else pad(frames, (0, 0) * (frames.ndim - 2) + (0, missing), value=1.0)


def evaluation_mask(metadata: Metadata, fields: Fields) -> Tensor:
    """(C, *grid) of ones where an error counts: the predicted channels at every (grid // native)-th point."""
    mask = torch.zeros(len(fields.channels), *fields.grid)
    kept = torch.ones(fields.grid, dtype=torch.bool)
    for axis, (size, own) in enumerate(zip(fields.grid, metadata.grid, strict=True)):
        on = torch.arange(size) % max(size // own, 1) == 0
        kept &= on.view(-1, *[1] * (len(fields.grid) - 1 - axis))
    for slot, channel in enumerate(metadata.channels):
        if channel in metadata.predicted:
            mask[slot, kept] = 1.0
    return mask
