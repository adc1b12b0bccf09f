"""Looking at every value of a trajectory once, in blocks of frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from math import prod
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from opframe.files.refusal import once_more
from opframe.mixture.fingerprints import frame_digest, is_blank
from opframe.mixture.moments import Moments, moments
from opframe.mixture.source import is_there
from opframe_registry import DataError, Metadata, Trajectories

BLOCK = 64 * 2**20
"""Bytes of frames that are held at a time."""


@frozen(kw_only=True)
class Place:
    """Where a value lies, in the numbering of the files."""

    frame: int
    channel: str
    point: tuple[int, ...]
    value: str


@frozen(kw_only=True, eq=False)
class Health:
    """What one trajectory is like.

    `fault` says why it could not be read. `stuck` counts frames that repeat the one before in every predicted channel,
    `blank` those that are constant in space in all of them. `first` and `whole` are digests of the first frame, unless
    it is blank, and of all frames. `moments` (T, C) are None where a value is not finite.
    """

    number: int
    fault: str = ""
    not_finite: int = 0
    place: Place | None = None
    stuck: int = 0
    blank: int = 0
    first: bytes | None = None
    whole: bytes = b""
    moments: Moments | None = None


def blocks(metadata: Metadata, number: int, stride: int = 1) -> Iterator[range]:
    """The frames of a trajectory that are used, in runs that fit into the memory of a block."""
    frame = 4 * len(metadata.channels) * prod(metadata.grid)
    length = max(BLOCK // (frame * stride), 1) * stride
    frames = metadata.length(number)
    for start in range(0, frames, length):
        yield range(start, min(start + length, frames), stride)


def examine(trajectories: Trajectories, number: int, stride: int = 1) -> Health:
    """Read a trajectory, every `stride`-th frame of it, and say what it is like. What cannot be read is a fault."""
    if not trajectories.metadata.length(number):
        return Health(number=number, fault="there are no frames in it")
    look = _Look(trajectories.metadata, number)
    try:
        for frames in blocks(trajectories.metadata, number, stride):
            look.at(_read(trajectories, number, frames), frames)
    except DataError as error:
        return Health(number=number, fault=str(error))
    except (OSError, ValueError, KeyError, TypeError) as error:  # a damaged file makes its libraries fail in many ways
        return Health(number=number, fault=f"cannot be read: {type(error).__name__}: {error}")
    health, checksums = look.health(), getattr(trajectories, "checksums", ())
    if stride == 1 and checksums and health.whole != checksums[number]:
        return Health(number=number, fault="its bytes are others than were packed (BLAKE2b); pack it again")
    return health


def examine_all(trajectories: Trajectories, numbers: Sequence[int], stride: int = 1) -> list[Health]:
    """`examine` for each of several trajectories."""
    return [examine(trajectories, number, stride) for number in numbers]


def _read(trajectories: Trajectories, number: int, frames: range) -> NDArray[np.float32]:
    """Frames (T, C, *grid); of remote ones, what is not finite is what came twice."""
    read = once_more(
        lambda: trajectories.read(number, frames.start, frames[-1] + 1),
        lambda read: bool((np.isfinite(read) | ~is_there(read, trajectories.metadata.missing)).all()),
    )
    return read[:: frames.step]


class _Look:
    """What has been seen of one trajectory so far."""

    def __init__(self, metadata: Metadata, number: int) -> None:
        self._metadata, self._number = metadata, number
        self._predicted = [metadata.channels.index(name) for name in metadata.predicted]
        self._hash = blake2b(digest_size=16)
        self._first: bytes | None = None
        self._last: NDArray[np.float32] | None = None
        self._moments: list[Moments] = []
        self._not_finite, self._stuck, self._blank = 0, 0, 0
        self._place: Place | None = None

    def at(self, block: NDArray[np.float32], frames: range) -> None:
        """Look at the next frames, (T, C, *grid). Raises DataError if they have another shape."""
        expected = (len(frames), len(self._metadata.channels), *self._metadata.grid)
        if block.shape != expected:
            raise DataError(f"frames {frames.start} to {frames[-1]} have shape {block.shape}, expected {expected}")
        block = np.ascontiguousarray(block)
        self._hash.update(block.reshape(-1).view(np.uint8).data)
        missing = self._metadata.missing
        there = None if missing is None else is_there(block, missing)
        self._look_for_constants(block if there is None else np.where(there, block, np.float32(0.0)))
        finite = np.isfinite(block) if there is None else np.isfinite(block) | ~there
        if not finite.all():
            self._not_finite += finite.size - int(np.count_nonzero(finite))
            self._place = self._place or self._found(block, np.argwhere(~finite)[0], frames)
        else:
            self._moments.append(moments(block, 2, there))

    def _look_for_constants(self, block: NDArray[np.float32]) -> None:
        for frame in block:
            shown = frame[self._predicted].reshape(len(self._predicted), -1)
            blank = is_blank(frame, self._predicted)
            if self._last is None:
                self._first = None if blank else frame_digest(frame)
            else:
                self._stuck += np.array_equal(shown, self._last)
            self._blank += blank
            self._last = shown

    def _found(self, block: NDArray[np.float32], index: NDArray[Any], frames: range) -> Place:
        frame, channel, *point = (int(part) for part in index)
        return Place(
            frame=frames[frame],
            channel=self._metadata.channels[channel],
            point=tuple(point),
            value=str(block[tuple(index)]),
        )

    def health(self) -> Health:
        return Health(
            number=self._number,
            not_finite=self._not_finite,
            place=self._place,
            stuck=self._stuck,
            blank=self._blank,
            first=self._first,
            whole=self._hash.digest(),
            moments=None if self._place else _joined(self._moments),
        )


def _joined(pieces: list[Moments]) -> Moments:
    """Statistics of all frames, from those of runs of them."""
    return Moments(
        count=_joined_counts([piece.count for piece in pieces]),
        mean=np.concatenate([piece.mean for piece in pieces]),
        squares=np.concatenate([piece.squares for piece in pieces]),
        low=np.concatenate([piece.low for piece in pieces]),
        high=np.concatenate([piece.high for piece in pieces]),
    )


def _joined_counts(counts: list[int | NDArray[np.float64]]) -> int | NDArray[np.float64]:
    first = counts[0]
    return first if isinstance(first, int) else np.concatenate(counts)
