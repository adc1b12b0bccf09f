"""From TOML tables to settings and components, strictly, with all mistakes at once; and back."""

from __future__ import annotations

import os
import re
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
from attrs import define, frozen
from cattrs import Converter

from opframe.settings import key_name
from opframe.toml import Text
from opframe_registry import KINDS, Catalog, Component, ConfigError, Location, PluginError, did_you_mean

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
    """A cattrs converter with exact scalars, own messages, and components looked up in the catalog."""
    converter = Converter()
    for scalar in (int, float, str, bool):
        converter.register_structure_hook(scalar, _exactly)
    converter.register_structure_hook_func(lambda type_: type_ is Location, _location)
    converter.register_structure_hook_func(_has_origin(Literal), _one_of)
    converter.register_structure_hook_func(_has_origin(tuple), lambda value, type_: _items(converter, value, type_))
    converter.register_structure_hook_func(
        _has_origin(Union, types.UnionType), lambda value, type_: _one_type(converter, value, type_)
    )
    converter.register_structure_hook_factory(attrs.has, lambda class_: _table_hook(converter, class_))
    converter.register_structure_hook_func(
        lambda type_: type_ in KINDS, lambda value, type_: _component(converter, catalog, value, type_)
    )
    return converter


def _has_origin(*origins: Any) -> Callable[[Any], bool]:
    return lambda type_: get_origin(type_) in origins


def _exactly(value: Any, type_: type) -> Any:
    if type_ is float and type(value) is int:
        return float(value)
    if type(value) is not type_ and not (type_ is str and isinstance(value, str)):
        raise ValueError(f"expected {type_.__name__}, got {_shown(value)}")
    return str(value) if type_ is str else value


def _shown(value: Any) -> str:
    return repr(str(value)) if isinstance(value, str) else repr(value)


def _location(value: Any, _: Any) -> Location:
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


def _one_type(converter: Converter, value: Any, type_: Any) -> Any:
    """`X | None` is an X, as there is no null in TOML; in `X | Literal[...]` a list is the X, a word the literal."""
    first, *others = get_args(type_)
    words = [other for other in others if get_origin(other) is Literal]
    return converter.structure(value, words[0] if words and isinstance(value, str) else first)


def _one_of(value: Any, type_: Any) -> Any:
    choices = get_args(type_)
    if value not in choices or type(value) not in {str, Text, int}:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"expected one of {known}, got {_shown(value)}{did_you_mean(str(value), map(str, choices))}")
    return choices[choices.index(value)]


def _items(converter: Converter, value: Any, type_: Any) -> tuple[Any, ...]:
    """A TOML array as a tuple: `tuple[int, ...]`, or one type for each place."""
    types_ = get_args(type_)
    if not isinstance(value, list):
        raise ValueError(f"expected a list, got {_shown(value)}")
    if types_[-1] is not Ellipsis and len(types_) != len(value):
        raise ValueError(f"expected {len(types_)} values, got {len(value)}")
    result: list[Any] = []
    problems: list[Problem] = []
    for index, item in enumerate(value):
        item_type = types_[0] if types_[-1] is Ellipsis else types_[index]
        with _Collect(problems, f"[{index}]"):
            result.append(converter.structure(item, item_type))
    if problems:
        raise ProblemsError(problems)
    return tuple(result)


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
        elif isinstance(error, (ValueError, TypeError, ConfigError, PluginError)):
            self.problems.append(Problem(self.place, str(error.args[0])))
        else:
            return False
        return True


def join(outer: str, inner: str) -> str:
    """`datasets` and `[1].url` make `datasets[1].url`."""
    return outer + inner if not outer or not inner or inner.startswith("[") else f"{outer}.{inner}"


def _table_hook(converter: Converter, class_: Any) -> Callable[[Any, Any], Any]:
    return lambda value, _: structure_table(converter, class_, value)


def structure_table(converter: Converter, class_: Any, table: Any) -> Any:
    """Make an attrs object of a table. Raises ProblemsError with everything that is wrong in it."""
    if not isinstance(table, dict):
        raise ValueError(f"expected a table, got {_shown(table)}")
    hints = get_type_hints(class_)
    known = {key_name(attribute): attribute for attribute in attrs.fields(class_)}
    problems = [Problem("", f"unknown key '{key}'{did_you_mean(key, known)}") for key in table if key not in known]
    values: dict[str, Any] = {}
    for name, attribute in known.items():
        if name in table:
            with _Collect(problems, name):
                values[attribute.name] = converter.structure(table[name], hints[attribute.name])
        elif attribute.default is attrs.NOTHING:
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
    if size is None or "size" not in attrs.fields_dict(class_):
        return {}
    if size not in class_.presets:
        known = ", ".join(class_.presets) or "none"
        message = f"unknown preset {_shown(size)}{did_you_mean(str(size), class_.presets)}; presets: {known}"
        raise ProblemsError([Problem("size", message)])
    return class_.presets[size]


def to_tables(settings: Any) -> Any:
    """Settings as TOML tables. Keys without a value are left out, as TOML has no null."""
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
