"""Many datasets on one grid and one axis of channels, and the mask of their errors (the DPOT data protocol)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from attrs import evolve, frozen
from numpy.typing import NDArray
from torch import Tensor

from opframe.config import building
from opframe.config.settings import Resize
from opframe.console import counted
from opframe.files.refusal import once_more
from opframe.mixture.normalization import Normalization
from opframe.mixture.resizing import resize, resize_known
from opframe_registry import ConfigError, DataError, Dataset, Fields, Metadata, Population, Split, Trajectories

_PIECE = 2**19  # bytes that are copied at a time


@frozen(kw_only=True)
class Source:
    """One opened dataset of the mixture, of which every `stride`-th frame is used and some trajectories are not.

    `metadata` and everything that counts speaks of what is used. `excluded` are the dataset's own numbers, ascending.
    With a `normalization`, a model sees the channels in its units.
    """

    title: str
    weight: float
    rollout: int
    trajectories: Trajectories
    stride: int = 1
    excluded: tuple[int, ...] = ()
    resize: Resize = "bilinear"
    normalization: Normalization | None = None

    @cached_property
    def metadata(self) -> Metadata:
        return without(thinned(self.trajectories.metadata, self.stride), self.excluded)

    def number(self, trajectory: int) -> int:
        """The dataset's own number of a trajectory that is used."""
        for excluded in self.excluded:
            trajectory += excluded <= trajectory
        return trajectory

    def read(self, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
        """Frames [start, stop) of one trajectory, shape (T, C, *native grid)."""
        last = (stop - 1) * self.stride + 1
        return self.trajectories.read(self.number(trajectory), start * self.stride, last)[:: self.stride]

    def seen(self, fields: Fields) -> Fields:
        """What a model is given of these data: the fields, but on the data's own grid where nothing is resized."""
        native = self.resize == "native"
        return evolve(fields, grid=self.trajectories.metadata.grid) if native else fields

    def physical(self, frames: Tensor) -> Tensor:
        """What a model sees or predicts, (B, T, C, *grid), in the dataset's own units."""
        return frames if self.normalization is None else self.normalization.restore(frames)

    def population(self, frames: int) -> Population:
        """Where windows of `frames` frames begin."""
        starts = (self.metadata.frames - frames + 1,) * self.metadata.trajectories
        return Population(starts=starts, weight=self.weight)


def thinned(metadata: Metadata, stride: int) -> Metadata:
    """The metadata of every `stride`-th frame."""
    step = metadata.time_step and metadata.time_step * stride
    return evolve(metadata, frames=(metadata.frames - 1) // stride + 1, time_step=step)


def without(metadata: Metadata, excluded: Sequence[int]) -> Metadata:
    """The metadata of the other trajectories."""
    count, left_out = metadata.trajectories, set(excluded)
    parameters = {
        name: tuple(value for number, value in enumerate(values) if len(values) < count or number not in left_out)
        for name, values in metadata.parameters.items()
    }
    return evolve(metadata, trajectories=count - len(left_out), parameters=parameters) if left_out else metadata


def excluded_of(component: Dataset, split: Split, have: int) -> tuple[int, ...]:
    """The trajectories that a split goes without, ascending: only training does, scores are of all test data.

    Raises DataError unless all of them are there, and others too.
    """
    title, excluded = component.title, tuple(sorted(set(component.exclude))) if split == "train" else ()
    unknown = [number for number in excluded if number >= have]
    if unknown:
        raise DataError(f"{title}: exclude names trajectory {unknown[0]}, but they are numbered 0 to {have - 1}")
    if len(excluded) == have:
        raise DataError(f"{title}: exclude names all {counted(have, 'trajectory')}; nothing is left to train on")
    return excluded


def check_not_empty(component: Dataset, metadata: Metadata) -> None:
    """Raises DataError where there is nothing in a trajectory."""
    what = {"frames": metadata.frames, "channels": len(metadata.channels), "grid points": min(metadata.grid)}
    for name, count in what.items():
        if count < 1:
            grid = "x".join(map(str, metadata.grid))
            raise DataError(
                f"{component.title}: there is nothing in its trajectories, which have no {name} "
                f"(frames: {metadata.frames}, channels: {len(metadata.channels)}, grid: {grid})"
            )


def open_dataset(component: Dataset, split: Split, cache: Path) -> Trajectories:
    """A split of a dataset. Raises DataError, where its files are remote after they were looked at anew."""
    return once_more(lambda: building.open_split(component, split, cache))


def open_source(
    component: Dataset, trajectories: Trajectories, history: int, frames: int, split: Split = "test"
) -> Source:
    """Check that a dataset is long enough for the windows and the roll-out. Raises DataError."""
    check_not_empty(component, trajectories.metadata)
    metadata = thinned(trajectories.metadata, component.stride)
    excluded = excluded_of(component, split, metadata.trajectories)
    if metadata.frames < history + frames:
        raise DataError(
            f"{component.title}: trajectories have {counted(metadata.frames, 'frame')}, but a window takes "
            f"{history + frames} ({history} of history and {frames} to predict); lower data.history, "
            "objective.frames or its stride"
        )
    rollout = component.rollout or metadata.frames - history
    if history + rollout > metadata.frames:
        raise DataError(
            f"{component.title}: rollout = {rollout} after {counted(history, 'frame')} of history takes "
            f"{history + rollout} frames, but trajectories have {metadata.frames}"
        )
    return Source(
        title=component.title,
        weight=component.weight,
        rollout=rollout,
        trajectories=trajectories,
        stride=component.stride,
        excluded=excluded,
    )


def left_out(sources: Sequence[Source]) -> list[str]:
    """One line for each dataset of which trajectories are excluded, for the log."""
    return [
        f"{source.title}: training without {len(source.excluded)} of {source.trajectories.metadata.trajectories} "
        f"trajectories: {', '.join(map(str, source.excluded))}"
        for source in sources
        if source.excluded
    ]


def channel_slots(sources: Sequence[Source], width: int | None = None) -> tuple[str, ...]:
    """The channel axis of the mixture, as wide as its widest dataset; a slot's name joins what it holds.

    Raises ConfigError if a dataset has more channels than a `width` that is given.
    """
    widest = max(sources, key=lambda source: len(source.metadata.channels))
    if width is not None and width < len(widest.metadata.channels):
        raise ConfigError(
            f"data.channels = {width}, but {widest.title} has {counted(len(widest.metadata.channels), 'channel')}: "
            f"{', '.join(widest.metadata.channels)}"
        )
    slots: list[dict[str, None]] = [{} for _ in range(width or len(widest.metadata.channels))]
    for source in sources:
        for slot, name in zip(slots, source.metadata.channels, strict=False):
            slot[name] = None
    return tuple("/".join(slot) or f"unused_{index}" for index, slot in enumerate(slots))


def read_frames(source: Source, trajectory: int, start: int, stop: int, fields: Fields) -> Tensor:
    """Frames as a model sees them, (T, C, *grid) float32; 0 where a value is missing. Raises DataError, as `read_into`.
    """
    frames = torch.empty(stop - start, len(fields.channels), *source.seen(fields).grid)
    read_into(frames, source, trajectory, start)
    return frames


def read_known(source: Source, trajectory: int, start: int, stop: int, fields: Fields) -> tuple[Tensor, Tensor]:
    """`read_frames`, and where there are values: bools (T, C, *grid), or (1, 1, *ones) where none can be missing."""
    if source.metadata.missing is None:
        frames = read_frames(source, trajectory, start, stop, fields)
        return frames, torch.ones([1] * frames.ndim, dtype=torch.bool)
    frames = torch.empty(stop - start, len(fields.channels), *source.seen(fields).grid)
    known = torch.empty_like(frames, dtype=torch.bool)
    read_into(frames, source, trajectory, start, known)
    return frames, known


def read_into(frames: Tensor, source: Source, trajectory: int, start: int, known: Tensor | None = None) -> None:
    """Fill (T, C, *grid) with frames from `start` on; channels that the dataset does not have are 1.

    Values that are missing become 0, in the units of a model; where all are, so do the channels that it does not have.
    `known`, bools of the same shape, become false there.
    Raises DataError if other values are not finite, remote ones after they were fetched anew.
    """
    once_more(lambda: _read_into(frames, source, trajectory, start, known))


def _read_into(frames: Tensor, source: Source, trajectory: int, start: int, known: Tensor | None) -> None:
    read = source.read(trajectory, start, start + len(frames))
    own = frames[:, : read.shape[1]]
    there = _take(own, source, trajectory, start, read)
    frames[:, read.shape[1] :] = 1.0
    if source.normalization is not None:
        source.normalization.apply_(frames)
    if there is not None:
        padding = there.any(1, keepdim=True).expand(-1, frames.shape[1] - there.shape[1], *there.shape[2:])
        there = torch.cat([there, padding], 1)
        frames.masked_fill_(~there, 0.0)
    if known is not None:
        known.copy_(torch.ones((), dtype=torch.bool) if there is None else there)


def _take(own: Tensor, source: Source, trajectory: int, start: int, read: NDArray[np.float32]) -> Tensor | None:
    """Bring what was read into (T, own channels, *grid). Where there are values; None: everywhere. Raises DataError."""
    grid, missing = tuple(own.shape[2:]), source.metadata.missing
    if missing is not None:
        there = is_there(read, missing)
        filled = np.where(there, read, np.float32(0.0))
        check_finite(source, trajectory, start, filled)
        resized, valid = resize_known(torch.from_numpy(filled), torch.from_numpy(there), grid, source.resize)
        own.copy_(resized)
        return valid
    same_grid = grid == read.shape[2:]
    values = own.numpy() if same_grid else np.empty(read.shape, np.float32)
    if not copied_finite(values, read):
        check_finite(source, trajectory, start, values)
    if not same_grid:
        own.copy_(resize(torch.from_numpy(values), grid, source.resize))
    return None


def is_there(frames: NDArray[np.float32], missing: float | None) -> NDArray[np.bool_]:
    """Where frames hold something else than the value that stands for none; with None, everywhere."""
    if missing is None:
        return np.ones(frames.shape, np.bool_)
    found: NDArray[np.bool_] = ~np.isnan(frames) if np.isnan(missing) else frames != np.float32(missing)
    return found


def read_finite(source: Source, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
    """Frames [start, stop) as they are stored, (T, C, *native grid).

    Raises DataError where one that is not missing is not finite, as `read_into` does.
    """

    def checked() -> NDArray[np.float32]:
        frames = source.read(trajectory, start, stop)
        missing = source.metadata.missing
        stored = frames if missing is None else np.where(is_there(frames, missing), frames, np.float32(0.0))
        check_finite(source, trajectory, start, stored)
        return frames

    return once_more(checked)


def copied_finite(values: NDArray[np.float32], read: NDArray[np.float32]) -> bool:
    """Copy what was read into `values`, and say whether all of it is surely finite.

    It is copied in pieces along the axis in which it lies on disk, and each is summed up while it is in the cache: with
    a term that is not finite no sum is finite. That of large terms may not be either.
    """
    axis = int(np.argmax(read.strides))
    length = max(_PIECE * read.shape[axis] // read.nbytes, 1)
    finite = True
    for begin in range(0, read.shape[axis], length):
        piece = (*[slice(None)] * axis, slice(begin, begin + length))
        np.copyto(values[piece], read[piece])
        finite &= isfinite(torch.from_numpy(values[piece]).sum().item())
    return finite


def check_finite(source: Source, trajectory: int, start: int, frames: NDArray[np.float32]) -> None:
    """Raises DataError saying where the first value that is not finite lies, in the numbering of the file."""
    if np.isfinite(frames).all():
        return
    frame, channel, *point = (int(index) for index in np.argwhere(~np.isfinite(frames))[0])
    raise DataError(
        f"{source.title}: trajectory {source.number(trajectory)} holds {frames[(frame, channel, *point)]} in frame "
        f"{(start + frame) * source.stride}, channel '{source.metadata.channels[channel]}', "
        f"at grid point {tuple(point)}"
    )


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
