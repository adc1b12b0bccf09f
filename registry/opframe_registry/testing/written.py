"""From tables as they are written in TOML to components, as an experiment's file makes them."""

from __future__ import annotations

from collections.abc import Mapping
from os.path import normpath
from pathlib import Path
from typing import Any, TypeVar

from opframe_registry.component import Component
from opframe_registry.discovery import did_you_mean, discover
from opframe_registry.keys import (
    ChoiceType,
    ComponentType,
    EitherType,
    KeyType,
    ListType,
    LocationType,
    MappingType,
    RowType,
    ScalarType,
    TableType,
    holds,
    key_type,
    keys_of,
)
from opframe_registry.values import Location

Made = TypeVar("Made")


class Written(str):
    """A string of a file; a path is relative to the folder of that file."""

    folder: Path


def placed(value: Any, folder: Path) -> Any:
    """A value of TOML whose strings know the folder of their file, which `{here}` stands for, too."""
    if isinstance(value, Mapping):
        return {key: placed(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [placed(item, folder) for item in value]
    if not isinstance(value, str):
        return value
    text = Written(value.replace("{here}", str(folder)))
    text.folder = folder
    return text


def structured(class_: type[Made], table: Mapping[str, Any]) -> Made:
    """An attrs object of a table, with the preset that `size` names laid under it.

    Raises TypeError or ValueError saying which key is wrong, and whatever the validators of the class raise.
    """
    known = {key.name: key for key in keys_of(class_)}
    if issubclass(class_, Component) and "size" in known:
        table = {**class_.presets.get(str(table.get("size")), {}), **table}
    for name in table:
        if name not in known:
            raise TypeError(f"unknown key '{name}'{did_you_mean(name, known)}")
    values = {known[name].attribute: _value(known[name].type, value, name) for name, value in table.items()}
    return class_(**{attribute.alias or attribute.name: value for attribute, value in values.items()})


def _value(type_: KeyType, value: Any, name: str) -> Any:
    """A value as settings hold it. Raises TypeError naming the key where it is not of its type."""
    read = _read(type_, value, name)
    if not holds(type_, read):
        raise TypeError(f"{name} = {value!r} is not of the type of this key")
    return read


def _read(type_: KeyType, value: Any, name: str) -> Any:
    inside = [key_type(inner) for inner in type_.inside]
    match type_:
        case LocationType() if isinstance(value, str):
            return _location(value)
        case ListType() if isinstance(value, list | tuple):
            return tuple(_value(inside[0], item, f"{name}[{index}]") for index, item in enumerate(value))
        case RowType() if isinstance(value, list | tuple) and len(value) == len(inside):
            return tuple(_value(own, item, name) for own, item in zip(inside, value, strict=True))
        case MappingType() if isinstance(value, Mapping):
            return {str(key): _value(inside[0], item, f"{name}.{key}") for key, item in value.items()}
        case EitherType():
            return _either(inside, value, name)
        case TableType() if isinstance(value, Mapping):
            return structured(type_.annotation, value)
        case ComponentType() if isinstance(value, Mapping) and "type" in value:
            keys = {key: item for key, item in value.items() if key != "type"}
            return structured(discover().get(type_.annotation, str(value["type"])), keys)
        case ScalarType() if type_.annotation is float and type(value) is int:
            return float(value)
    return str(value) if isinstance(value, str) else value


def _either(options: list[KeyType], value: Any, name: str) -> Any:
    """Of the first of some types that a value is of, words to choose before others; as it is where it is of none."""
    for option in sorted(options, key=lambda option: not isinstance(option, ChoiceType)):
        try:
            return _value(option, value, name)
        except TypeError:
            continue
    return value


def _location(value: str) -> Location:
    folder = value.folder if isinstance(value, Written) else None
    if folder is None or "://" in value:
        return Location(str(value))
    return Location(normpath(folder / Path(value).expanduser()))
