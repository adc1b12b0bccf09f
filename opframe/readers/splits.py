"""Which trajectories are for training and which for testing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from attrs import evolve, frozen

from opframe.console import counted
from opframe.files.location import is_there
from opframe.readers.arrays import Part
from opframe_registry import DataError, Dataset, Split
from opframe_registry.identity import in_place


def place(url: str, split: Split) -> str:
    """Where a split lies, for which `{split}` stands in a path or URL: `valid` where there is nothing else called so.

    Raises DataError.
    """
    places = in_place(url, split)
    return next((one for one in places if len(places) == 1 or is_there(one)), places[0])


def splits_at(url: str) -> tuple[Split, ...]:
    """The splits that lie at a path or URL: validation is one where files are there for it. Raises DataError."""
    places = in_place(url, "validation")
    if len(places) > 1 and any(map(is_there, places)):
        return ("train", "validation", "test")
    return ("train", "test")


@frozen(kw_only=True)
class Share:
    """`count` of all trajectories, from number `first` on, and in `words` how they were chosen."""

    first: int
    count: int
    words: str


def share(component: Dataset, split: Split, url: str, have: int, separate: bool) -> Share:
    """The trajectories of a split, of `have` in all. Raises DataError where they do not suffice.

    Where the splits lie in `separate` files, a split is the first `train`, `validation` or `test` trajectories of its
    own. Otherwise
    training takes the first `train` and evaluation the last `test` of what is there; where only one of the two is set,
    the other takes the rest, and where neither is, all is evaluated.
    """
    if have < 1:
        raise DataError(f"{component.title}: {url} holds no trajectories")
    if separate:
        wanted = {"train": component.train, "validation": component.validation, "test": component.test}[split]
        first, count = 0, have if wanted is None else wanted
        _check_enough(component.title, split, count, url, have)
    else:
        first, count = _cut(component, split, url, have)
    return Share(first=first, count=count, words=_words(split, first, count, have, separate))


def _check_enough(title: str, split: Split, wanted: int, url: str, have: int) -> None:
    if wanted > have:
        raise DataError(f"{title}: {split} = {wanted}, but {url} holds {counted(have, 'trajectory')}")


def _cut(component: Dataset, split: Split, url: str, have: int) -> tuple[int, int]:
    """First trajectory and number of a split, where the same files hold both."""
    title, train, test = component.title, component.train, component.test
    if split == "train" and train is None and test is None:
        raise DataError(
            f"{title}: {url} holds training and test data; "
            "set 'test' to the number of trajectories to keep for evaluation"
        )
    decides = split if (train if split == "train" else test) is not None else "test" if split == "train" else "train"
    number = (train if decides == "train" else test) or 0
    _check_enough(title, decides, number, url, have)
    holds = f"{url} holds {counted(have, 'trajectory')}"
    if split == "train" and None not in (train, test) and (train or 0) + (test or 0) > have:
        raise DataError(f"{title}: train = {train} and test = {test} overlap; {holds}")
    count = number if decides == split else have - number
    if count < 1:
        purpose = "training" if split == "train" else "evaluation"
        raise DataError(f"{title}: {decides} = {number} leaves nothing for {purpose}; {holds}")
    return (0, count) if split == "train" else (have - count, count)


def _words(split: Split, first: int, count: int, have: int, separate: bool) -> str:
    owner = f" of the files for {split}" if separate else ""
    if count == have:
        return f"all {have} trajectories{owner}" if have != 1 else f"the one trajectory{owner}"
    return f"the {'first' if first == 0 else 'last'} {count} of {have} trajectories{owner}"


def chosen(parts: Sequence[Part], share: Share) -> list[Part]:
    """The files that hold a share of the trajectories of all `parts`, and which of theirs belong to it."""
    start, stop = share.first, share.first + share.count
    kept = []
    for part, end in zip(parts, accumulate(part.count for part in parts), strict=True):
        begin = end - part.count
        low, high = max(start, begin), min(stop, end)
        if low < high:
            kept.append(evolve(part, first=part.first + low - begin, count=high - low))
    return kept
