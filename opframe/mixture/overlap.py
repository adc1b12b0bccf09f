"""Trajectories that are trained on, or validated by, and evaluated too, found by their first frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from opframe.console import few
from opframe.mixture.fingerprints import Fingerprints, first_frames
from opframe_registry import Metadata, Progress, Split, Trajectories

_ALIKE = 0.01  # of the spread in space: trajectories that begin equal and end closer than that are the same
_POINTS = 256  # at which they are compared, in each channel


@frozen(kw_only=True)
class Overlap:
    """Trajectories of a dataset that are evaluated, of `count` in all, and begin as some that a run has used before.

    `split` is that of those that are evaluated, and `used` says whether the others, in `training_trajectories`, are
    trained on or validated by. `same`: they end alike as well. Trajectories have the numbers that `exclude` and
    `opframe data check` give them; with `exclude` of the training data set to `without`, nothing of the kind is left.
    Where `without` is empty, no such list can be given.
    """

    evaluated: str
    zero_shot: bool
    count: int
    trajectories: tuple[int, ...]
    trained: str
    training_trajectories: tuple[int, ...]
    without: tuple[int, ...]
    same: bool
    split: Literal["validation", "test"] = "test"
    used: Literal["training", "validation"] = "training"

    @property
    def words(self) -> str:
        """What was found, in a sentence."""
        those = f"{len(self.trajectories)} of {self.count} {'zero-shot' if self.zero_shot else self.split} trajectories"
        those += f" of {self.evaluated} ({few(self.trajectories)})"
        others = f"{self.used} trajectories of {self.trained} ({few(self.training_trajectories)})"
        if not self.same:
            return f"{those} begin with the same frame as {others} and go on otherwise."
        how = "TRAINED ON" if self.used == "training" else "VALIDATED BY"
        return (
            f"{self.split.upper()} DATA ARE {how}: {those} are the same as {others}. Their errors are not those of "
            "unseen data."
        )


@frozen(kw_only=True)
class Compared:
    """What of a dataset takes part in a comparison, and as what: as its training, validation or test data.

    `held_out`: the validation data are training data that were held out, and have the numbers of those.
    """

    prints: Fingerprints
    use: Split
    zero_shot: bool = False
    held_out: bool = False


def find_overlaps(used: Sequence[Compared], evaluated: Sequence[Compared], progress: Progress) -> list[Overlap]:
    """Compare the first frames of all trajectories, and of those that begin equal a last one. Raises DataError."""
    first = first_frames([each.prints for each in (*used, *evaluated)], progress)
    known = list(zip(used, first, strict=False))
    found: list[Overlap] = []
    for one, frames in zip(evaluated, first[len(used) :], strict=True):
        for other, other_frames in known:
            found += _between(one, frames, other, other_frames)
    return found


def _between(
    one: Compared, frames: Mapping[int, str | None], other: Compared, other_frames: Mapping[int, str | None]
) -> Iterator[Overlap]:
    """What a dataset that is evaluated and one that is used before have in common: what is the same, then the rest."""
    ours, theirs = _by_digest(frames), _by_digest(other_frames)
    common = [(ours[digest], theirs[digest]) for digest in ours if digest in theirs]
    source, trained = one.prints.source, other.prints.source
    ends = [_same_end(source.trajectories, mine, trained.trajectories, its) for mine, its in common]
    same = {number for pairs in ends for number, _ in pairs}
    rest = [([number for number in mine if number not in same], its) for mine, its in common]
    for numbers, others, alike in (
        (same, {number for pairs in ends for _, number in pairs}, True),
        ({n for mine, _ in rest for n in mine}, {n for mine, its in rest if mine for n in its}, False),
    ):
        if numbers:
            yield Overlap(
                evaluated=source.title,
                zero_shot=one.zero_shot,
                count=len(frames),
                trajectories=tuple(sorted(numbers)),
                trained=trained.title,
                training_trajectories=tuple(sorted(others)),
                without=_without(one, other, others),
                same=alike,
                split="validation" if one.use == "validation" else "test",
                used="validation" if other.use == "validation" else "training",
            )


def _without(one: Compared, other: Compared, numbers: Iterable[int]) -> tuple[int, ...]:
    """The key `exclude` with which nothing is left in common.

    There is none for a validation split that the data came with, nor where some of those that are left would be held
    out in place of those that are now.
    """
    if one.held_out or (other.use == "validation" and not other.held_out):
        return ()
    return tuple(sorted({*numbers, *other.prints.excluded}))


def _by_digest(frames: Mapping[int, str | None]) -> dict[str, list[int]]:
    found: defaultdict[str, list[int]] = defaultdict(list)
    for number, digest in frames.items():
        if digest is not None:
            found[digest].append(number)
    return found


def _same_end(
    one: Trajectories, numbers: Sequence[int], other: Trajectories, others: Sequence[int]
) -> list[tuple[int, int]]:
    """The pairs of trajectories that agree in the last frame that both have, up to a hundredth. Raises DataError."""
    if len(one.metadata.channels) != len(other.metadata.channels) or one.metadata.grid != other.metadata.grid:
        return []
    pairs = []
    for length, mine in _by_length(one.metadata, numbers).items():
        for its_length, its in _by_length(other.metadata, others).items():
            pairs += _alike(one, mine, other, its, frame=min(length, its_length) - 1)
    return pairs


def _by_length(metadata: Metadata, numbers: Sequence[int]) -> dict[int, list[int]]:
    found: defaultdict[int, list[int]] = defaultdict(list)
    for number in numbers:
        found[metadata.length(number)].append(number)
    return found


def _alike(
    one: Trajectories, numbers: Sequence[int], other: Trajectories, others: Sequence[int], frame: int
) -> list[tuple[int, int]]:
    """The pairs of trajectories that agree in a frame. Raises DataError."""
    ours, theirs = _points(one, numbers, frame), _points(other, others, frame)
    pairs = []
    for number, values in zip(numbers, ours, strict=True):
        spread = values.std(axis=1)
        spread = np.where(spread > 0, spread, np.abs(values.mean(axis=1)))  # a channel that is constant in space
        distance = np.sqrt(np.square(theirs - values).mean(axis=2))
        alike = (distance <= _ALIKE * spread).all(axis=1)
        pairs += [(number, others[index]) for index in np.flatnonzero(alike).tolist()]
    return pairs


def _points(trajectories: Trajectories, numbers: Iterable[int], frame: int) -> NDArray[np.float64]:
    """Values of one frame of trajectories (N, C, points), at points that are spread over the grid."""
    found = []
    for number in numbers:
        values = trajectories.read(number, frame, frame + 1)[0].reshape(len(trajectories.metadata.channels), -1)
        chosen = np.linspace(0, values.shape[1] - 1, min(values.shape[1], _POINTS)).astype(int)
        found.append(np.nan_to_num(values[:, chosen].astype(np.float64)))  # missing ones are alike
    return np.stack(found)


def advice(overlaps: Sequence[Overlap]) -> list[str]:
    """What to write into a config so that nothing is evaluated that was used before, a line for each dataset."""
    without: defaultdict[str, set[int]] = defaultdict(set)
    for found in overlaps:
        if found.same:
            without[found.trained] |= {*found.without}
    return [
        f"to train without them: [[datasets]] of {title}: exclude = {sorted(numbers)}"
        if numbers
        else f"[[datasets]] of {title}: `opframe data check` names the trajectories that are there twice; exclude those"
        for title, numbers in without.items()
    ]
