"""What the settings are, for people: the keys of a class, and the page of all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from inspect import cleandoc
from typing import Any

import attrs
from attrs import frozen

from opframe.config.defaults import DEFAULTS
from opframe.config.settings import Experiment
from opframe.tables import markdown_table
from opframe_registry import KINDS, Catalog
from opframe_registry.component import summary
from opframe_registry.keys import (
    ChoiceType,
    ComponentType,
    EitherType,
    ListType,
    LocationType,
    MappingType,
    RowType,
    ScalarType,
    TableType,
    key_type,
    keys_of,
)

_INTRODUCTION = """# Configuration

This page is generated from the classes themselves: `opframe schema --markdown`.

An experiment is a TOML file. It is read strictly: an unknown key, a wrong type or a value out of range is an error, and
all errors are reported at once.

- `include = "base.toml"` (or a list) at the top lays this file over others: tables join, anything else is replaced.
  Several files in a list bring the tables of their arrays one after the other. `[datasets]` with `swe_pdb.weight = 20`
  changes the dataset with this label among those that were included.
  When the `type` of a component changes, only the keys that all of its kind have are kept, such as `size` of a backbone
  or `learning_rate` of an optimizer.
- `--set backbone.width=256`, `--set datasets.0.weight=2` (or `datasets.LABEL.weight=2`) override single keys; the value
  is TOML, a bare word a string.
- `${NAME}` in a string is the environment variable NAME.
- A relative path is relative to the folder of the file it is written in; in `--set`, or left to its default, to the
  working directory. Anything with `://` is a URL for fsspec.
- `size = "..."` fills a component's keys from a preset; single keys override it.
- The resolved experiment is saved as `config.toml` in the run folder, and can be run again from there.
"""

SCALARS: Mapping[type, str] = {int: "integer", float: "number", str: "string", bool: "boolean"}
"""What simple values are called, here and in JSON Schema."""


@frozen(kw_only=True)
class Key:
    """One key of a table: its type in words, its default as TOML, and its help."""

    name: str
    type: str
    default: str
    help: str


def keys(class_: type) -> list[Key]:
    """The keys of a settings class or component, required ones first."""
    laid_under = DEFAULTS if class_ is Experiment else {}
    found = [
        Key(
            name=key.name,
            type=type_in_words(key.type.annotation),
            default=default_in_words(laid_under.get(key.name, key.attribute.default)),
            help=key.attribute.metadata.get("help", ""),
        )
        for key in keys_of(class_)
    ]
    return sorted(found, key=lambda key: key.default != "required")


def default_in_words(default: Any) -> str:
    """A default as it would stand in TOML."""
    if default is attrs.NOTHING:
        return "required"
    if type(default) is attrs.Factory:
        return "a table of defaults"
    if default is None:
        return "not set"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list) and all(isinstance(item, Mapping) for item in default):
        return f"[{', '.join(map(default_in_words, default))}]"
    if isinstance(default, list | tuple):
        return str(list(default))
    if isinstance(default, Mapping):
        return "{" + ", ".join(f"{key} = {default_in_words(value)}" for key, value in default.items()) + "}"
    return f'"{default}"' if isinstance(default, str) else str(default)


def type_in_words(annotation: Any) -> str:
    """`tuple[int, ...]` as 'list of integer', `int | None` as 'integer', and so on."""
    type_ = key_type(annotation)
    match type_:
        case ScalarType():
            return SCALARS[type_.annotation]
        case LocationType():
            return "path or URL"
        case ChoiceType():
            return " or ".join(f'"{choice}"' for choice in type_.choices)
        case ListType() | RowType():
            return "list of " + ", ".join(dict.fromkeys(map(type_in_words, type_.inside)))
        case MappingType():
            return f"table of {type_in_words(type_.inside[0])}"
        case EitherType():
            return " or ".join(map(type_in_words, type_.inside))
        case ComponentType():
            return str(type_.annotation.kind)
    return "table"


def paragraphs(class_: type) -> str:
    """A class's docstring with one line for each paragraph, to be wrapped to any width."""
    text = cleandoc(class_.__doc__ or "")
    return re.sub(r"(?<=\S)\n(?=[^\s*|-])", " ", text)


def markdown(catalog: Catalog) -> str:
    """The page of all tables and of every installed component."""
    parts = [_INTRODUCTION, "## Experiment\n", _key_table(Experiment)]
    for name, class_ in _tables():
        parts += [f"## `{name}`\n", f"{summary(class_)}\n", _key_table(class_)]
    for kind in KINDS:
        parts.append(f"## {kind.kind.capitalize()}s\n")
        for _, item in catalog.offers(kind):
            parts += [f'### `type = "{item.name}"`\n', f"{cleandoc(item.__doc__ or '')}\n", _key_table(item)]
            parts += [f'- `size = "{size}"`: ' + _settings(values) for size, values in item.presets.items()]
            parts += [""] if item.presets else []
    return "\n".join(parts).strip()


def _tables() -> list[tuple[str, type]]:
    """The experiment's own tables: `[data]`, `[[parameters]]` and so on, with their classes."""
    found = []
    for key in keys_of(Experiment):
        several = isinstance(key.type, ListType)
        type_ = key_type(key.type.inside[0]) if several else key.type
        if isinstance(type_, TableType):
            found.append((f"[[{key.name}]]" if several else f"[{key.name}]", type_.annotation))
    return found


def _settings(values: Any) -> str:
    return ", ".join(f"{key} = {default_in_words(value)}" for key, value in values.items())


def _key_table(class_: type) -> str:
    rows = [(f"`{key.name}`", key.type, key.default, key.help) for key in keys(class_)]
    return "\n".join(markdown_table(("key", "type", "default", "meaning"), "llll", rows)) + "\n"
