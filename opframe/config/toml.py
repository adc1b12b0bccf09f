"""Reading experiment files: include, overrides, environment variables, and where a string was written."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import attrs

from opframe_registry import KINDS, ConfigError

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_KEY = re.compile(r"[^.\[\]]+")
_LARGEST = 2**24  # bytes of a file: whoever gives a file of data in its place does not wait for all of it
_COMMON = {kind.kind: {attribute.name for attribute in attrs.fields(kind)} for kind in KINDS}
_COMMON |= {"datasets": _COMMON["dataset"], "zero_shot": _COMMON["dataset"], "metrics": _COMMON["metric"]}


class Text(str):
    """A string that remembers the folder of the file it was written in."""

    __slots__ = ("folder",)
    folder: Path


def text(value: str, folder: Path) -> Text:
    """A Text with its folder."""
    result = Text(value)
    result.folder = folder
    return result


Overrides = Sequence[str] | Mapping[str, Any]
"""Words of the form `a.b=value`, or values by such keys."""


def load_tables(source: Path | Mapping[str, Any], overrides: Overrides = ()) -> dict[str, Any]:
    """The tables of a file, with what it includes, after overrides; or such tables themselves.

    The arrays of tables of several included files follow each other. Over an array of tables lies a table: its keys
    are labels, and what it says of each is laid over the table with that label.

    A relative path belongs to the folder of the file it is written in, one elsewhere to the working directory. Raises
    ConfigError naming the file, the place in it, or the override.
    """
    tables = _load(source, ()) if isinstance(source, Path) else _mark(dict(source), Path.cwd())
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            tables = _set(tables, key, value, f"overrides: {key}")
    else:
        for override in overrides:
            tables = _override(tables, override)
    expanded: dict[str, Any] = _expand(tables, "", source if isinstance(source, Path) else Path("the experiment"))
    return expanded


def _parsed(path: Path, including: tuple[Path, ...]) -> dict[str, Any]:
    """The tables of one file, as they stand there."""
    origin = f", included by {including[-1]}" if including else ""
    try:
        if path.resolve() in including:
            raise ConfigError(f"{path}: includes itself, by way of {including[-1]}")
        with path.open("rb") as file:
            written = file.read(_LARGEST + 1)
        if len(written) > _LARGEST:
            raise ConfigError(f"{path}: more than {_LARGEST >> 20} MiB{origin}; expected an experiment in TOML")
        return tomllib.loads(written.decode("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file{origin}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: it is no text in UTF-8 ({error}){origin}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}{origin}") from error
    except (OSError, ValueError, RuntimeError) as error:  # of a path that cannot be one, or of links that go round
        raise ConfigError(f"{path}: cannot be read ({error}){origin}") from error


def _load(path: Path, including: tuple[Path, ...]) -> dict[str, Any]:
    tables = _parsed(path, including)
    folder = path.resolve().parent
    includes = tables.pop("include", [])
    includes = [includes] if isinstance(includes, str) else includes
    if not isinstance(includes, list) or not all(isinstance(item, str) for item in includes):
        raise ConfigError(f"{path}: include: expected a file name or a list of them, got {includes!r}")
    result: dict[str, Any] = {}
    for include in includes:
        result = _joined(result, _load(folder / include, (*including, path.resolve())))
    try:
        return merge(result, _mark(tables, folder))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _mark(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return text(value, folder)
    if isinstance(value, list | tuple):
        return [_mark(item, folder) for item in value]
    if isinstance(value, Mapping):
        return {key: _mark(item, folder) for key, item in value.items()}
    return text(str(value), folder) if isinstance(value, Path) else value


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """What two included files say together: the second lies over the first, but their arrays of tables are joined."""
    both = {key: [*first[key], *value] for key, value in second.items() if _lists(first.get(key)) and _lists(value)}
    return {**merge(first, second), **both}


def _lists(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Whether a value is an array of tables."""
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`: tables join, also with those of an array by their labels; anything else is replaced.

    When the `type` of a component changes, only the keys that all of its kind have are kept: the others meant
    another component. Raises ConfigError for a label that an array does not have.
    """
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = merge(_keep(key, old, value.get("type", old.get("type"))), value)
        elif _lists(old) and isinstance(value, dict):
            result[key] = _laid_over(key, old, value)
        else:
            result[key] = value
    return result


def _laid_over(key: str, below: Sequence[dict[str, Any]], above: Mapping[str, Any]) -> list[Any]:
    """An array of tables, each with what `above` says under its label."""
    result: list[Any] = list(below)
    for label, value in above.items():
        place = _place(result, label)
        if place is None:
            raise ConfigError(f"{key}.{label}: expected a label out of {', '.join(_labels(result))}")
        result[place] = merge({key: result[place]}, {key: value})[key]
    return result


def _labels(items: Sequence[Any]) -> list[str]:
    return [str(item.get("label", item.get("type", ""))) if isinstance(item, dict) else "" for item in items]


def _place(items: Sequence[Any], name: str) -> int | None:
    """Where in an array something is, by its number or by its label, which must be that of one table alone."""
    if name.isdecimal():
        return int(name) if int(name) < len(items) else None
    labels = _labels(items)
    return labels.index(name) if labels.count(name) == 1 else None


def _keep(key: str, table: dict[str, Any], type_: Any) -> dict[str, Any]:
    """What of the table `key` outlives a change to another type. A `type` that is no word is a key like any other."""
    if table.get("type", type_) == type_ or not isinstance(type_, str):
        return table
    return {name: value for name, value in table.items() if name in _COMMON.get(key, ())}


def _override(tables: dict[str, Any], override: str) -> dict[str, Any]:
    key, separator, written = override.partition("=")
    if not separator:
        raise ConfigError(f"--set {override}: expected key=value, as in backbone.width=256")
    try:
        value = tomllib.loads(f"value = {written}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = written  # a bare word is a string: quoting it through a shell is a nuisance
    return _set(tables, key, value, f"--set {override}")


def _set(tables: dict[str, Any], key: str, value: Any, said: str) -> dict[str, Any]:
    steps = _KEY.findall(key.strip())
    if not steps:
        raise ConfigError(f"{said}: expected key=value, as in backbone.width=256")
    return dict(_assign(tables, steps, _mark(value, Path.cwd()), said))


def _assign(node: Any, steps: Sequence[str], value: Any, said: str, key: str = "") -> Any:
    """`node`, which stands under `key`, with a value set some steps below, as somebody has `said`."""
    step, rest = steps[0], steps[1:]
    if isinstance(node, list):
        items, place = list(node), _place(node, step)
        if place is None:
            labels = ", ".join(filter(None, _labels(node)))
            words = f", nor one of the labels {labels}" if labels else ""
            raise ConfigError(f"{said}: '{step}' is not an index between 0 and {len(node) - 1}{words}")
        items[place] = _assign(items[place], rest, value, said, key) if rest else value
        return items
    if not isinstance(node, dict):
        raise ConfigError(f"{said}: '{step}' has nothing to be set in; the key before it is a single value")
    if rest:
        return {**node, step: _assign(node.get(step, {}), rest, value, said, step)}
    return merge(_keep(key, node, value) if step == "type" else node, {step: value})


def _expand(value: Any, key: str, path: Path) -> Any:
    """Replace ${NAME} by the environment variable in every string."""
    if isinstance(value, dict):
        return {name: _expand(item, f"{key}.{name}".lstrip("."), path) for name, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, f"{key}[{index}]", path) for index, item in enumerate(value)]
    if not isinstance(value, Text):
        return value

    def replace(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ConfigError(f"{path}: {key}: the environment variable {match[1]} is not set")
        return os.environ[match[1]]

    return text(_VARIABLE.sub(replace, value), value.folder)
