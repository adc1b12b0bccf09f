"""What is public stays: names, signatures, fields and members are those of `public_names.txt`.

Where one of them is meant to change, as docs/stability.md allows, the list is written anew by
`python tests/public_names.py > tests/public_names.txt`, and shows what changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import attrs
import pytest

import opframe
import opframe_registry
import public_names
from opframe_registry import Component


def test_the_public_names_are_those_of_the_list() -> None:
    """Compared as lists, so that pytest shows the lines that differ."""
    attrs.resolve_types(opframe.Report)  # as whatever reads one does: the list is the same before and after
    pinned = Path(public_names.__file__).with_suffix(".txt").read_text(encoding="utf-8")
    assert public_names.listing().splitlines() == pinned.splitlines(), public_names.__doc__


def test_every_public_name_is_listed() -> None:
    lines = public_names.listing().splitlines()
    for package in (opframe_registry, opframe):
        for name in {*package.__all__} - {"__version__"}:
            place = f"{package.__name__}.{name}"
            assert any(line.startswith(place) and not line[len(place)].isalnum() for line in lines), place


@attrs.frozen(kw_only=True)
class One(Component):
    """What is changed in each case, of every sort of thing that is listed."""

    width: int = 1
    depth: int

    @property
    def area(self) -> int:
        return self.width * self.depth

    @classmethod
    def make(cls, width: int) -> One:
        return cls(width=width, depth=1)

    def grow(self, by: int = 1) -> int:
        return self.width + by


@attrs.frozen(kw_only=True)
class Other(Component):
    width: int = 2
    depth: str

    @property
    def area(self) -> float:
        return self.width

    @classmethod
    def make(cls, depth: int) -> One:
        return One(depth=depth)

    def grow(self, by: int, twice: bool = False) -> int:
        return self.width + by


class Two(Protocol):
    def read(self, start: int) -> int: ...


def test_whatever_is_changed_is_seen() -> None:
    """Defaults, types, arguments, results: each line of one class differs from that of the other."""
    one, other = (list(public_names.of_class("place", class_)) for class_ in (One, Other))
    assert one == [
        "place(Component)",
        "  width: int = 1",
        "  depth: int",
        "  area: int (property)",
        "  grow(self, by: 'int' = 1) -> 'int'",
        "  make(cls, width: 'int') -> 'One' (class method)",
    ]
    assert len(one) == len(other)
    assert not {*one[1:]} & {*other[1:]}
    assert list(public_names.of_class("place", Two)) == ["place(Protocol)", "  read(self, start: 'int') -> 'int'"]


@pytest.mark.parametrize("package", [opframe_registry, opframe])
def test_public_names_are_documented(package: Any) -> None:
    for name in package.__all__:
        value = getattr(package, name)
        if callable(value) and getattr(value, "__module__", "").startswith("opframe"):
            assert (value.__doc__ or "").strip(), name
