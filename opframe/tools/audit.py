"""`opframe data check`: every trajectory looked at, and what is wrong with them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import get_args

import numpy as np
from attrs import define, field, frozen

from opframe.console import Bar
from opframe.mixture.moments import Moments
from opframe.mixture.source import lengths_of
from opframe.tools.health import Health, examine_all
from opframe.tools.selection import Part
from opframe.tools.work import Pool, done_by
from opframe_registry import Split

_FAR = 10.0  # how many times the usual deviation from the mean is worth a remark
_WORTH = 10**9  # bytes; checking them takes longer than starting a process
_SPLITS: tuple[Split, ...] = get_args(Split)  # in the order in which a run comes to read them
_AHEAD = 4  # runs of trajectories for each worker, at least
_TOGETHER = 16  # trajectories that a worker looks at in one go


@frozen(kw_only=True)
class Finding:
    """Something that a person should know. `bad` is what no training should read; the rest may be as it should be."""

    bad: bool
    title: str
    split: Split
    trajectory: int
    what: str


@frozen(kw_only=True, eq=False)
class Course:
    """Statistics of each channel (C,) over all frames, over the first frames and over the last ones."""

    whole: Moments
    first: Moments
    last: Moments

    @classmethod
    def of(cls, frames: Moments) -> Course:
        """Those of one trajectory, from what is known of each of its frames, (T, C)."""
        return cls(whole=frames.over(0), first=frames.at(0), last=frames.at(-1))

    def __add__(self, other: Course) -> Course:
        return Course(whole=self.whole + other.whole, first=self.first + other.first, last=self.last + other.last)


@define(kw_only=True)
class Audit:
    """What is known of one split of a dataset.

    `course` is over all trajectories without fault, `leaked` are those to train or to validate by that are used later
    as well.
    """

    part: Part
    findings: list[Finding] = field(factory=list)
    looked_at: int = 0
    course: Course | None = None
    digests: list[tuple[int, bytes | None, bytes]] = field(factory=list)
    farthest: list[tuple[int, float]] = field(factory=list)
    leaked: set[int] = field(factory=set)

    @property
    def bad(self) -> list[int]:
        """Numbers of the trajectories that no training should read."""
        return sorted({finding.trajectory for finding in self.findings if finding.bad})

    def add(self, health: Health) -> None:
        """Take note of one trajectory."""
        self.looked_at += 1
        frames = len(range(0, self.part.trajectories.metadata.length(health.number), self.part.component.stride))
        for bad, what in _alone(health, frames):
            self.find(bad, health.number, what)
        if not health.fault:
            self.digests.append((health.number, health.first, health.whole))
        if health.moments is not None:
            course = Course.of(health.moments)
            self.course = course if self.course is None else self.course + course
            self.farthest.append((health.number, _range(health.moments)))

    def find(self, bad: bool, trajectory: int, what: str) -> None:
        """Take note of something."""
        part = self.part
        self.findings.append(Finding(bad=bad, title=part.title, split=part.split, trajectory=trajectory, what=what))


def _alone(health: Health, frames: int) -> Iterator[tuple[bool, str]]:
    """What a trajectory shows by itself: whether it is bad, and what it is."""
    if health.fault:
        yield True, health.fault
    if health.place:
        place = health.place
        yield (
            True,
            f"{health.not_finite} {'value is' if health.not_finite == 1 else 'values are'} not finite; the first is "
            f"{place.value} in frame {place.frame}, channel '{place.channel}', point {place.point}",
        )
    if frames > 1 and health.stuck == frames - 1:
        yield True, f"all {frames} frames are the same"
    elif health.stuck:
        yield False, f"{health.stuck} of {frames} frames repeat the one before"
    if health.blank:
        yield health.blank == frames, f"{health.blank} of {frames} frames are constant in space"


def _range(found: Moments) -> float:
    """The largest distance between a trajectory's values, in any channel."""
    return float((found.high.max(axis=0) - found.low.min(axis=0)).max())


def audit(parts: Sequence[Part], pool: Pool | None, bar: Bar) -> list[Audit]:
    """Look at all trajectories of all parts, and at how they differ from each other."""
    return together(look(parts, tasks_of(parts), pool, bar))


def tasks_of(parts: Sequence[Part]) -> list[tuple[int, int]]:
    """The trajectories that are to be looked at, by their part and number."""
    return [
        (index, number)
        for index, part in enumerate(parts)
        for number in range(part.trajectories.metadata.trajectories)
        if number not in part.excluded
    ]


def look(parts: Sequence[Part], tasks: Sequence[tuple[int, int]], pool: Pool | None, bar: Bar) -> list[Audit]:
    """What some of the trajectories show by themselves."""
    audits = [Audit(part=part) for part in parts]
    length = max(1, min(_TOGETHER, len(tasks) // (pool.workers * _AHEAD))) if pool else 1
    runs = [
        (index, numbers[begin : begin + length])
        for index in range(len(parts))
        for numbers in [[number for of, number in tasks if of == index]]
        for begin in range(0, len(numbers), length)
    ]
    what = [(parts[index].trajectories, numbers, parts[index].component.stride) for index, numbers in runs]
    for place, found in done_by(pool, examine_all, what):
        index = runs[place][0]
        for health in found:
            audits[index].add(health)
            bar.show(sum(each.looked_at for each in audits), parts[index].title)
    return audits


def together(audits: list[Audit]) -> list[Audit]:
    """Add what trajectories show beside each other."""
    for found in audits:
        _look_for_outliers(found)
    _look_for_copies(audits)
    for found in audits:
        found.findings.sort(key=lambda finding: (not finding.bad, finding.trajectory))
    return audits


def worthwhile_jobs(parts: Sequence[Part], cores: int) -> int:
    """How many processes are worth their start: one for each gigabyte, at most one for each core."""
    size = 0
    for part in parts:
        metadata = part.trajectories.metadata
        size += 4 * sum(lengths_of(metadata)) * len(metadata.channels) * prod(metadata.grid)
    return min(cores, 1 + size // _WORTH)


def _look_for_outliers(found: Audit) -> None:
    usual = float(np.median([distance for _, distance in found.farthest])) if found.farthest else 0.0
    for number, distance in found.farthest:
        if usual > 0 and distance > _FAR * usual:
            found.find(False, number, f"values span {distance:.4g}, {distance / usual:.0f} times the median trajectory")


def _look_for_copies(audits: Sequence[Audit]) -> None:
    """Trajectories that are there twice. One to test or validate by that is trained on, or to test by, is bad."""
    wholes: dict[bytes, tuple[Audit, int]] = {}
    firsts: dict[bytes, tuple[Audit, int]] = {}
    every = [(found, *digests) for found in audits for digests in found.digests]
    for found, number, first, whole in sorted(every, key=lambda one: _SPLITS.index(_used_as(one[0].part, one[1]))):
        if whole in wholes:
            _copy(found, number, *wholes[whole], "the same as")
        elif first is not None and first in firsts:
            _copy(found, number, *firsts[first], "begins with the same frame as", serious=False)
        wholes.setdefault(whole, (found, number))
        if first is not None:
            firsts.setdefault(first, (found, number))


def _used_as(part: Part, number: int) -> Split:
    return "validation" if number in part.held_out else part.split


def _copy(found: Audit, number: int, other: Audit, original: int, how: str, serious: bool = True) -> None:
    mine, others = _used_as(found.part, number), _used_as(other.part, original)
    leak = serious and mine != others
    what = {"train": "trained on", "validation": "validated by", "test": "tested by"}[others]
    where = f"trajectory {original} of {other.part.title} ({other.part.split})"
    found.find(leak, number, f"{how} {where}" + (f": {mine} data that are {what}" if leak else ""))
    if leak and found.part is not other.part:  # of a held-out copy it is enough to leave out the copy
        other.leaked.add(original)
