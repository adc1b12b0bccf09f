"""Digests of the first frames of trajectories, by which those that are there twice are told, kept in the cache."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import attrs
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from opframe.files.atomic import write_atomically
from opframe.files.location import is_local
from opframe.files.stamps import stamps
from opframe.mixture.source import Source
from opframe_registry import DataError, Dataset, Progress, Split, Trajectories
from opframe_registry.metadata import facts

_AT_ONCE = 16  # remote frames that are read at the same time: most of their time is waiting for the server


def is_blank(frame: NDArray[np.float32], predicted: Sequence[int]) -> bool:
    """Whether the predicted channels of a frame (C, *grid) are constant in space, such as water at rest."""
    shown = frame[predicted].reshape(len(predicted), -1)
    return bool((shown == shown[:, :1]).all())


def frame_digest(frame: NDArray[np.float32]) -> bytes:
    """A digest of all values of a frame."""
    return hashlib.blake2b(frame.tobytes(), digest_size=16).digest()


@frozen(kw_only=True)
class Fingerprints:
    """The first frames of the trajectories that are used of one split of a dataset, kept under `cache`.

    `excluded` are those that the dataset's key leaves out.
    """

    component: Dataset
    split: Split
    source: Source
    cache: Path
    excluded: tuple[int, ...] = ()

    @property
    def numbers(self) -> list[int]:
        """The dataset's own numbers of the trajectories."""
        return [self.source.number(index) for index in range(self.source.metadata.trajectories)]

    @property
    def title(self) -> str:
        return self.source.title

    def kept(self) -> dict[int, str | None]:
        """Those that the cache has, by number; None: the frame is blank, and so no evidence."""
        try:
            first = json.loads(self._path.read_text(encoding="utf-8"))["first"]
            return {int(number): digest for number, digest in first.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # not there, or damaged: they are made anew

    def look(self, numbers: Sequence[int]) -> Iterator[tuple[int, str | None]]:
        """Read the first frames of trajectories, of remote data several at once. Raises DataError."""
        trajectories = self.source.trajectories
        if all(is_local(url) for url in self.component.identity(lambda url: {url: ()}).files):
            for number in numbers:
                yield number, _fingerprint(trajectories, number)
            return
        readers: SimpleQueue[Trajectories] = SimpleQueue()  # as loader threads, each reads with its own copy
        for _ in range(min(_AT_ONCE, len(numbers))):
            readers.put(pickle.loads(pickle.dumps(trajectories)))

        def look(number: int) -> str | None:
            reader = readers.get()
            try:
                return _fingerprint(reader, number)
            finally:
                readers.put(reader)

        pool = ThreadPoolExecutor(_AT_ONCE, "fingerprints")
        try:
            yield from zip(numbers, pool.map(look, numbers), strict=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def keep(self, known: dict[int, str | None]) -> None:
        """Put them into the cache; where that cannot be written they are made anew the next time.

        What others have put there since, who use other trajectories of the split, stays.
        """
        known = {**self.kept(), **known}
        record = {"first": {str(number): known[number] for number in sorted(known)}, "of": self._identity}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps(record, indent=1))
        except OSError as error:
            warnings.warn(f"{self._path}: fingerprints of the data are not kept ({error})", stacklevel=2)

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """What the first frames depend on: not on which trajectories are left out, nor on which frames follow."""
        known = attrs.evolve(self.component, exclude=(), stride=1, validation=None).identity(stamps, (self.split,))
        metadata = self.source.trajectories.metadata
        said = {name: value for name, value in facts(metadata).items() if name != "parameters"}
        return {"settings": known.settings, "split": self.split, "metadata": said, "files": known.files}

    @cached_property
    def _path(self) -> Path:
        digest = hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()[:16]
        return self.cache / "fingerprints" / f"{self.component.name}-{digest}.json"


def _fingerprint(trajectories: Trajectories, number: int) -> str | None:
    """Raises DataError."""
    metadata = trajectories.metadata
    frames = trajectories.read(number, 0, 1)
    expected = (1, len(metadata.channels), *metadata.grid)
    if frames.shape != expected:
        raise DataError(f"trajectory {number}: its first frame has shape {frames.shape}, expected {expected}")
    predicted = [metadata.channels.index(name) for name in metadata.predicted]
    return None if is_blank(frames[0], predicted) else frame_digest(frames[0]).hex()


def first_frames(several: Sequence[Fingerprints], progress: Progress) -> list[dict[int, str | None]]:
    """The fingerprints of each, from the cache or from the data; what was made is kept, also where it ends early.

    Raises DataError.
    """
    found = [each.kept() for each in several]
    lacking = [
        [number for number in each.numbers if number not in kept] for each, kept in zip(several, found, strict=True)
    ]
    done, total = 0, sum(map(len, lacking))
    for each, known, numbers in zip(several, found, lacking, strict=True):
        if not numbers:
            continue
        try:
            for number, digest in each.look(numbers):
                known[number] = digest
                done += 1
                progress("fingerprints of trajectories", done, total)
        finally:
            each.keep(known)
    return [{number: known[number] for number in each.numbers} for each, known in zip(several, found, strict=True)]
