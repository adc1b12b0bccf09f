"""The orders of axes in which an array may be stored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

_FEW = 8  # channels at most, if nothing says which axis they are
_POINTS = 4  # of an axis of space at least


def readings(url: str, contents: Mapping[str, tuple[int, ...]]) -> Sequence[Mapping[str, Any]]:
    """The settings with which the largest array can be read: every usual order of axes that its lengths allow."""
    if not contents:
        return []
    largest = max(contents, key=lambda name: (len(contents[name]) > 1, prod(contents[name])))
    file, _, path = largest.rpartition(":")
    where = f"{url.rstrip('/')}/{_pattern(file, path, contents)}" if file else url
    named = {"path": path} if path else {}
    return [{"url": where, "axes": " ".join(axes), **named} for axes in _orders(contents[largest], url)]


def _pattern(file: str, path: str, contents: Mapping[str, tuple[int, ...]]) -> str:
    """A file of a folder, or what the names of all have in common if they lie together and hold arrays of one shape."""
    folder, _, name = file.rpartition("/")
    inside, suffix = f"{folder}/" if folder else "", name[name.rindex(".") :]
    alike = re.compile(rf"{re.escape(inside)}[^/:]*{re.escape(suffix)}:{re.escape(path)}")
    same = len(set(contents.values())) == 1 and len(contents) > 1 and all(map(alike.fullmatch, contents))
    return f"{inside}*{suffix}" if same else file


def _orders(shape: tuple[int, ...], url: str) -> list[str]:
    """The usual orders that fit, or if none does, those with as many axes."""
    as_many = [axes for axes in _usual(url) if len(axes) == len(shape)]
    return [axes for axes in as_many if _fits(axes, shape)] or as_many


def _usual(url: str) -> Iterator[str]:
    for space in ("xy", "x", "xyz"):
        for first in ("n", ""):
            for rest in (f"t{space}", f"{space}t", f"t{space}c", f"tc{space}", f"{space}tc"):
                yield first + rest
                if url.lower().endswith(".mat"):  # from MATLAB 7.3 on the axes come reversed
                    yield (first + rest)[::-1]


def _fits(axes: str, shape: tuple[int, ...]) -> bool:
    lengths = dict(zip(axes, shape, strict=True))
    channels, frames = lengths.pop("c", 1), lengths.pop("t")
    lengths.pop("n", None)
    return channels <= _FEW and frames >= 2 and min(lengths.values()) >= _POINTS
