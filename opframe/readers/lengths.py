"""How many frames each trajectory of a dataset has, where that is not the same for all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np
from attrs import evolve

from opframe.files.location import each, require_real
from opframe.files.retries import redacted
from opframe.readers.arrays import Part
from opframe.readers.stores import Array
from opframe_registry import DataError

_NUMBER = re.compile(r"\{n(?::0?\d*d?)?\}")  # in a path, the number of a trajectory that has an array of its own
_SHOWN = 12


def lengths_of_files(files: Sequence[str], sizes: Mapping[str, int | None], ask: Callable[[str], int]) -> list[int]:
    """The frames of files of one trajectory each, as `ask` says of a file. Raises what it raises.

    One file speaks for all if they have one size, as those of uncompressed arrays of one shape do. What is otherwise in
    another of them all the same is refused where it is read. None is the size of a file that a server does not say.
    """
    found = {sizes[file] for file in files}
    if len(found) == 1 and None not in found:
        return [ask(files[0])] * len(files)
    return each(ask, files)


def checked_lengths(url: str, path: str, array: Array, trajectories: int, frames: int) -> tuple[int, ...]:
    """The frames of trajectories that are padded to `frames`, as an array says. Raises DataError where it cannot be."""
    shown = f"shape {tuple(array.shape)}"
    if prod(array.shape) == trajectories:
        require_real(redacted(url), path, array.dtype)
        lengths = np.ravel(array[(slice(None),) * len(array.shape)])
        if ((lengths == np.floor(lengths)) & (lengths >= 0) & (lengths <= frames)).all():
            return tuple(map(int, lengths.tolist()))
        shown = f"numbers from {lengths.min():g} to {lengths.max():g}"
    raise DataError(
        f"{redacted(url)}: '{path}' has {shown}; expected how many frames each of {trajectories} trajectories has, "
        f"from 0 to {frames}"
    )


def is_numbered(path: str) -> bool:
    """Whether a path has the number of a trajectory in it, as `run_{n:04d}/u`."""
    return _NUMBER.search(path) is not None


def template(path: str) -> str:
    """A path as that of a `Variable`, in which no braces but those of the number mean anything."""
    texts, numbers = _NUMBER.split(path), _NUMBER.findall(path)
    plain = [text.replace("{", "{{").replace("}", "}}") for text in texts]
    return "".join(text + number for text, number in zip(plain, [*numbers, ""], strict=True))


def numbered(url: str, path: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """The shapes of the arrays whose paths are numbered, by their numbers, ascending. Raises DataError for none."""
    expected, first = template(path), _NUMBER.split(path)[0]
    found = {}
    for name, shape in shapes.items():
        digits = re.match(r"\d+", name[len(first) :]) if name.startswith(first) else None
        if digits and expected.format(n=int(digits[0])) == name:
            found[int(digits[0])] = shape
    if not found:
        there = ", ".join(list(shapes)[:_SHOWN]) + (", …" if len(shapes) > _SHOWN else "")
        raise DataError(f"{redacted(url)}: has no array '{path}', whatever the number n; found: {there or 'nothing'}")
    return {number: found[number] for number in sorted(found)}


def runs(url: str, numbers: Sequence[int]) -> list[Part]:
    """The parts of a file that has arrays of these numbers, ascending: one for each run without a gap."""
    parts: list[Part] = []
    for number in numbers:
        if parts and parts[-1].first + parts[-1].count == number:
            parts[-1] = evolve(parts[-1], count=parts[-1].count + 1)
        else:
            parts.append(Part(url=url, first=number))
    return parts
