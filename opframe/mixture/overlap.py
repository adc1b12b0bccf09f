"""Trajectories that are trained on and evaluated too, found by their first frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from opframe.mixture.fingerprints import Fingerprints, first_frames
from opframe_registry import Progress, Trajectories

_ALIKE = 0.01  # of the spread in space: trajectories that begin equal and end closer than that are the same
_POINTS = 256  # at which they are compared, in each channel
_SHOWN = 12  # numbers of trajectories in a sentence


@frozen(kw_only=True)
class Overlap:
    """Trajectories of a dataset that are evaluated, of `count` in all, and begin as some that are trained on.

    `same`: they end alike as well. Trajectories have the numbers that `exclude` and `opframe data check` give them;
    with `exclude` of the training data set to `without`, nothing of the kind is left.
    """

    evaluated: str
    zero_shot: bool
    count: int
    trajectories: tuple[int, ...]
    trained: str
    training_trajectories: tuple[int, ...]
    without: tuple[int, ...]
    same: bool

    @property
    def words(self) -> str:
        """What was found, in a sentence."""
        those = f"{len(self.trajectories)} of {self.count} {'zero-shot' if self.zero_shot else 'test'} trajectories"
        those += f" of {self.evaluated} ({_few(self.trajectories)})"
        others = f"training trajectories of {self.trained} ({_few(self.training_trajectories)})"
        if not self.same:
            return f"{those} begin with the same frame as {others} and go on otherwise."
        return f"TEST DATA ARE TRAINED ON: {those} are the same as {others}. Their errors are not those of unseen data."


def _few(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return ", ".join(map(str, numbers[:_SHOWN])) + more


def find_overlaps(
    trained: Sequence[Fingerprints],
    tested: Sequence[Fingerprints],
    zero_shot: Sequence[Fingerprints],
    progress: Progress,
) -> list[Overlap]:
    """Compare the first frames of all trajectories, and of those that begin equal a last one. Raises DataError."""
    first = first_frames([*trained, *tested, *zero_shot], progress)
    known = list(zip(trained, first, strict=False))
    found: list[Overlap] = []
    for index, (one, frames) in enumerate(zip([*tested, *zero_shot], first[len(trained) :], strict=True)):
        for other, other_frames in known:
            found += _between(one, frames, other, other_frames, zero_shot=index >= len(tested))
    return found


def _between(
    one: Fingerprints,
    frames: Mapping[int, str | None],
    other: Fingerprints,
    other_frames: Mapping[int, str | None],
    zero_shot: bool,
) -> Iterator[Overlap]:
    """What a dataset that is evaluated and one that is trained on have in common: what is the same, then the rest."""
    ours, theirs = _by_digest(frames), _by_digest(other_frames)
    common = [(ours[digest], theirs[digest]) for digest in ours if digest in theirs]
    ends = [_same_end(one.source.trajectories, mine, other.source.trajectories, its) for mine, its in common]
    same = {number for pairs in ends for number, _ in pairs}
    rest = [([number for number in mine if number not in same], its) for mine, its in common]
    for numbers, others, alike in (
        (same, {number for pairs in ends for _, number in pairs}, True),
        ({n for mine, _ in rest for n in mine}, {n for mine, its in rest if mine for n in its}, False),
    ):
        if numbers:
            yield Overlap(
                evaluated=one.source.title,
                zero_shot=zero_shot,
                count=len(frames),
                trajectories=tuple(sorted(numbers)),
                trained=other.source.title,
                training_trajectories=tuple(sorted(others)),
                without=tuple(sorted({*others, *other.source.excluded})),
                same=alike,
            )


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
    last = min(one.metadata.frames, other.metadata.frames) - 1
    ours, theirs = _points(one, numbers, last), _points(other, others, last)
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
    """What to write into a config so that nothing is evaluated that was trained on, a line for each dataset."""
    without: defaultdict[str, set[int]] = defaultdict(set)
    for found in overlaps:
        if found.same:
            without[found.trained] |= {*found.without}
    return [f"to train without them: [[datasets]] of {title}: exclude = {sorted(without[title])}" for title in without]
