"""What the numbers of a dataset depend on, so that what was made of them is known by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints

import attrs
from attrs import field, frozen

from opframe_registry.values import Location

WORDS: Mapping[str, tuple[str, ...]] = {"validation": ("validation", "valid")}
"""What `{split}` in a path stands for: each split by its own name, and what others call it."""

Stamp = tuple[int | str, ...]
"""Which version of a file it is: size and time of change in ns of a local one, size and version of a remote one."""

UNCHANGED: Mapping[str, Any] = {"changes_numbers": False}
"""Metadata of a field that changes neither the numbers nor which of them are used."""

SELECTS: Mapping[str, Any] = {"changes_numbers": False, "selects": True}
"""Metadata of a field that says which trajectories or frames are used, and leaves their numbers as they are."""

LATER: Mapping[str, Any] = {"changes_numbers": True, "later": True}
"""Metadata of a field that changes the numbers and came later: with its default it is left out of the identity, so
that what was made before the field was there is found. `"later": True` does so beside `SELECTS`, too."""


@frozen(kw_only=True)
class Identity:
    """Datasets with the same identity give the same numbers.

    `numbers` are the settings that change the numbers of a trajectory, `selection` those that say which trajectories
    and frames are used. `files` are the stamps of the files that the settings name, by path or URL.
    """

    type: str
    revision: int
    numbers: Mapping[str, Any]
    selection: Mapping[str, Any]
    files: Mapping[str, Stamp] = field(factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that decide what is read, with the type and its revision."""
        return {**self.numbers, **self.selection, "type": self.type, "revision": self.revision}


def meaning(component: type, name: str) -> Mapping[str, Any]:
    """The metadata that say whether a field changes numbers; one that is declared anew means what it did before."""
    for owner in component.__mro__:
        attribute = attrs.fields_dict(owner).get(name) if attrs.has(owner) else None
        if attribute is not None and "changes_numbers" in attribute.metadata:
            return attribute.metadata
    return {}


def in_place(url: str, split: str) -> tuple[str, ...]:
    """The paths or URLs at which a split may lie, as `{split}` stands for its names; one where there is none in it."""
    return tuple(dict.fromkeys(url.replace("{split}", word) for word in WORDS.get(split, (split,))))


def changes(component: type, name: str, value: Any) -> bool:
    """Whether a field with this value is part of what the numbers of a trajectory depend on."""
    return bool(meaning(component, name).get("changes_numbers", True)) and not _says_nothing(component, name, value)


def selects(component: type, name: str, value: Any) -> bool:
    """Whether a field with this value is part of what says which trajectories and frames are used."""
    return bool(meaning(component, name).get("selects", False)) and not _says_nothing(component, name, value)


def _says_nothing(component: type, name: str, value: Any) -> bool:
    """Whether a field that came later has its default, as if it were not there yet."""
    later = bool(meaning(component, name).get("later", False))
    return later and value == attrs.fields_dict(component)[name].default


def locations(instance: Any) -> Iterator[str]:
    """The paths and URLs in the fields of an attrs object, also within tuples, mappings and further objects."""
    hints = get_type_hints(type(instance))
    for attribute in attrs.fields(type(instance)):
        yield from _inside(getattr(instance, attribute.name), hints[attribute.name])


def _inside(value: Any, hint: Any) -> Iterator[str]:
    if attrs.has(type(value)):
        yield from locations(value)
    elif isinstance(value, str):
        if _mentioned(hint):
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _inside(item, hint)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _inside(item, hint)


def _mentioned(hint: Any) -> bool:
    return hint is Location or any(_mentioned(part) for part in get_args(hint))
