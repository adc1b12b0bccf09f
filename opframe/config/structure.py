"""From TOML tables to settings and components, strictly, with all mistakes at once; and back."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import define, frozen
from cattrs import Converter

from opframe.config.describe import type_in_words
from opframe.config.synonyms import suggestion
from opframe.config.toml import Text
from opframe.console import counted
from opframe_registry import Backbone, Catalog, Component, ConfigError, Location, PluginError, did_you_mean
from opframe_registry.keys import (
    ChoiceType,
    ComponentType,
    EitherType,
    ListType,
    LocationType,
    MappingType,
    RowType,
    ScalarType,
    key_name,
    key_type,
    keys_of,
)

_SECRET = re.compile(r"://[^/@\s]*@|[?&][^=&#]*(?:password|secret|sig|signature|token)=", re.IGNORECASE)


@frozen
class Problem:
    """One mistake: where in the file, and what."""

    place: str
    message: str


@define
class ProblemsError(Exception):
    """All mistakes found in one table; carried upwards until the whole file has been looked at."""

    problems: list[Problem]


def make_converter(catalog: Catalog) -> Converter:
    """A cattrs converter with exact scalars, own messages, and components looked up in the catalog.

    What an annotation means is found out by the registry's walk over attrs types; each meaning has its reader here.
    """
    converter = Converter()

    def reader(annotation: Any) -> Callable[[Any, Any], Any]:
        type_ = key_type(annotation)
        match type_:
            case ScalarType():
                return lambda value, _: _exactly(value, type_.annotation)
            case LocationType():
                return lambda value, _: _location(value)
            case ChoiceType():
                return lambda value, _: _one_of(value, type_.choices)
            case ListType() | RowType():
                return lambda value, _: _items(converter, value, type_)
            case MappingType():
                return lambda value, _: _mapping(converter, value, type_.inside[0])
            case EitherType():
                return lambda value, _: converter.structure(value, _fitting(value, type_))
            case ComponentType():
                return lambda value, _: _component(converter, catalog, value, type_.annotation)
        return lambda value, _: structure_table(converter, type_.annotation, value)

    converter.register_structure_hook_factory(lambda annotation: True, reader)
    for scalar in (int, float, str, bool):
        converter.register_structure_hook(scalar, reader(scalar))  # cattrs has hooks of its own, which come first
    return converter


def _exactly(value: Any, type_: type) -> Any:
    if type_ is float and type(value) is int:
        return float(value)
    if type(value) is not type_ and not (type_ is str and isinstance(value, str)):
        raise ValueError(f"expected {type_.__name__}, got {_shown(value)}")
    return str(value) if type_ is str else value


def _shown(value: Any) -> str:
    return repr(str(value)) if isinstance(value, str) else repr(value)


def _location(value: Any) -> Location:
    if not isinstance(value, str):
        raise ValueError(f"expected a path or URL, got {_shown(value)}")
    if _SECRET.search(value):
        raise ValueError(
            "the URL holds a password or signature, and the run folder keeps the config; "
            "give credentials as fsspec takes them: in the environment, or in ~/.config/fsspec"
        )
    if "://" in value or not isinstance(value, Text):
        return Location(str(value))
    return Location(os.path.normpath(value.folder / Path(value).expanduser()))


def _fitting(value: Any, type_: EitherType) -> Any:
    """The one of several types that a value is written as; a word that may be chosen is that choice."""
    written = str if isinstance(value, str) else type(value)
    options = [option for option in map(key_type, type_.inside) if written in option.written]
    if not options:
        raise ValueError(f"expected {type_in_words(type_.annotation)}, got {_shown(value)}")
    chosen = (option for option in options if isinstance(option, ChoiceType) and value in option.choices)
    return next(chosen, options[0]).annotation


def _one_of(value: Any, choices: Sequence[str | int]) -> Any:
    if value not in choices or type(value) not in {str, Text, int}:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"expected one of {known}, got {_shown(value)}{did_you_mean(str(value), map(str, choices))}")
    return choices[choices.index(value)]


def _items(converter: Converter, value: Any, type_: ListType | RowType) -> tuple[Any, ...]:
    """A TOML array as a tuple: of items of one type, or with one type for each place."""
    if not isinstance(value, list):
        raise ValueError(f"expected a list, got {_shown(value)}")
    if isinstance(type_, RowType) and len(value) != len(type_.inside):
        raise ValueError(f"expected {counted(len(type_.inside), 'value')}, got {len(value)}")
    places = type_.inside if isinstance(type_, RowType) else type_.inside * len(value)
    result: list[Any] = []
    problems: list[Problem] = []
    for index, (item, place) in enumerate(zip(value, places, strict=True)):
        with _Collect(problems, f"[{index}]"):
            result.append(converter.structure(item, place))
    if problems:
        raise ProblemsError(problems)
    return tuple(result)


def _mapping(converter: Converter, value: Any, annotation: Any) -> dict[str, Any]:
    """A TOML table with keys of the person's own."""
    if not isinstance(value, dict):
        raise ValueError(f"expected a table, got {_shown(value)}")
    result: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, item in value.items():
        with _Collect(problems, key):
            result[key] = converter.structure(item, annotation)
    if problems:
        raise ProblemsError(problems)
    return result


@define
class _Collect:
    """Turns what is raised inside into problems of one place, so that looking goes on."""

    problems: list[Problem]
    place: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> bool:
        if isinstance(error, ProblemsError):
            self.problems += [Problem(join(self.place, item.place), item.message) for item in error.problems]
        elif isinstance(error, (ValueError, TypeError, ConfigError, PluginError)) and error.args:
            self.problems.append(Problem(self.place, str(error.args[0])))
        elif isinstance(error, Exception):  # of a component's own validator
            self.problems.append(Problem(self.place, "not valid: " + f"{type(error).__name__}: {error}".strip(": ")))
        else:
            return False
        return True


def join(outer: str, inner: str) -> str:
    """`datasets` and `[1].url` make `datasets[1].url`."""
    return outer + inner if not outer or not inner or inner.startswith("[") else f"{outer}.{inner}"


def structure_table(converter: Converter, class_: Any, table: Any) -> Any:
    """Make an attrs object of a table. Raises ProblemsError with everything that is wrong in it."""
    if not isinstance(table, dict):
        raise ValueError(f"expected a table, got {_shown(table)}")
    known = {key.name: key for key in keys_of(class_)}
    problems = [Problem("", f"unknown key '{key}'{suggestion(key, known)}") for key in table if key not in known]
    values: dict[str, Any] = {}
    for name, key in known.items():
        if name in table:
            with _Collect(problems, name):
                values[key.attribute.name] = converter.structure(table[name], key.type.annotation)
        elif key.attribute.default is attrs.NOTHING:
            problems.append(Problem(name, "required, but missing"))
    if not problems:
        with _Collect(problems, ""):
            return class_(**values)
    else:
        problems += _invalid(class_, values)
    raise ProblemsError(problems)


def _invalid(class_: Any, values: Mapping[str, Any]) -> list[Problem]:
    """What the validators say of the keys that could be read, although the object cannot be made."""
    problems: list[Problem] = []
    for name, value in values.items():
        attribute = attrs.fields_dict(class_)[name]
        validator = attribute.validator
        if validator is not None and type(validator).__module__.startswith("attr"):
            with _Collect(problems, ""):
                validator(class_, attribute, value)
    return problems


def _component(converter: Converter, catalog: Catalog, table: Any, kind: type[Component]) -> Component:
    """Look up `type`, lay the table over the preset that `size` names, and make the component."""
    if not isinstance(table, dict):
        raise ValueError(f"expected a table, got {_shown(table)}")
    if not isinstance(table.get("type"), str):
        known = ", ".join(catalog.names(kind))
        raise ProblemsError([Problem("type", f"required, but missing; installed {kind.kind}s: {known}")])
    class_ = catalog.get(kind, table["type"])
    keys = {key: value for key, value in table.items() if key != "type"}
    made: Component = structure_table(converter, class_, {**_preset(class_, keys), **keys})
    return made


def _preset(class_: type[Component], keys: Mapping[str, Any]) -> Mapping[str, Any]:
    size = keys.get("size")
    has_presets = bool(class_.presets) or issubclass(class_, Backbone)  # elsewhere `size` may mean anything
    if size is None or not has_presets or "size" not in attrs.fields_dict(class_):
        return {}
    if not isinstance(size, str) or size not in class_.presets:
        known = ", ".join(class_.presets) or "none"
        message = f"unknown preset {_shown(size)}{did_you_mean(str(size), class_.presets)}; presets: {known}"
        raise ProblemsError([Problem("size", message)])
    return class_.presets[size]


def to_tables(settings: Any) -> Any:
    """Settings as TOML tables. Keys without a value are left out, as TOML has no null."""
    if isinstance(settings, Mapping):
        return {key: to_tables(value) for key, value in settings.items()}
    if isinstance(settings, (list, tuple)):
        return [to_tables(item) for item in settings]
    if not attrs.has(type(settings)):
        return settings
    table = {"type": settings.name} if isinstance(settings, Component) else {}
    for attribute in attrs.fields(type(settings)):
        value = getattr(settings, attribute.name)
        if value is not None:
            table[key_name(attribute)] = to_tables(value)
    return table
