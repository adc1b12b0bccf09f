"""Reading experiment files: include, overrides, environment variables, and where a string was written."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from opframe_registry import KINDS, ConfigError

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_KEY = re.compile(r"[^.\[\]]+")
_COMMON = {kind.kind: {attribute.name for attribute in attrs.fields(kind)} for kind in KINDS}
_COMMON |= {"datasets": _COMMON["dataset"], "zero_shot": _COMMON["dataset"]}


class Text(str):
    """A string that remembers the folder of the file it was written in."""

    __slots__ = ("folder",)
    folder: Path


def text(value: str, folder: Path) -> Text:
    """A Text with its folder."""
    result = Text(value)
    result.folder = folder
    return result


def load_tables(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The tables of a file, with what it includes, after overrides of the form `a.b=value`.

    A relative path belongs to the folder of the file it is written in, one in an override to the working
    directory. Raises ConfigError naming the file, the place in it, or the override.
    """
    tables = _load(path, ())
    for override in overrides:
        tables = _override(tables, override)
    expanded: dict[str, Any] = _expand(tables, "", path)
    return expanded


def _load(path: Path, including: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in including:
        raise ConfigError(f"{path}: includes itself, by way of {including[-1]}")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        origin = f", included by {including[-1]}" if including else ""
        raise ConfigError(f"{path}: no such file{origin}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    folder = path.resolve().parent
    includes = tables.pop("include", [])
    includes = [includes] if isinstance(includes, str) else includes
    if not isinstance(includes, list) or not all(isinstance(item, str) for item in includes):
        raise ConfigError(f"{path}: include: expected a file name or a list of them, got {includes!r}")
    result: dict[str, Any] = {}
    for include in includes:
        result = merge(result, _load(folder / include, (*including, path.resolve())))
    return merge(result, _mark(tables, folder))


def _mark(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return text(value, folder)
    if isinstance(value, list):
        return [_mark(item, folder) for item in value]
    if isinstance(value, dict):
        return {key: _mark(item, folder) for key, item in value.items()}
    return value


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`: tables join, anything else is replaced.

    When the `type` of a component changes, only the keys that all of its kind have are kept: the others meant
    another component.
    """
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = merge(_keep(key, old, value.get("type", old.get("type"))), value)
        else:
            result[key] = value
    return result


def _keep(key: str, table: dict[str, Any], type_: Any) -> dict[str, Any]:
    """What of the table `key` outlives a change to another type."""
    if table.get("type", type_) == type_:
        return table
    return {name: value for name, value in table.items() if name in _COMMON.get(key, ())}


def _override(tables: dict[str, Any], override: str) -> dict[str, Any]:
    key, separator, written = override.partition("=")
    steps = _KEY.findall(key.strip())
    if not separator or not steps:
        raise ConfigError(f"--set {override}: expected key=value, as in backbone.width=256")
    try:
        value = tomllib.loads(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        value = written  # a bare word is a string: quoting it through a shell is a nuisance
    return dict(_assign(tables, steps, _mark(value, Path.cwd()), override))


def _assign(node: Any, steps: Sequence[str], value: Any, override: str, key: str = "") -> Any:
    """`node`, which stands under `key`, with a value set some steps below."""
    step, rest = steps[0], steps[1:]
    if isinstance(node, list):
        if not step.isdigit() or int(step) >= len(node):
            raise ConfigError(f"--set {override}: '{step}' is not an index between 0 and {len(node) - 1}")
        items = list(node)
        items[int(step)] = _assign(items[int(step)], rest, value, override, key) if rest else value
        return items
    if not isinstance(node, dict):
        raise ConfigError(f"--set {override}: '{step}' has nothing to be set in; the key before it is a single value")
    if rest:
        return {**node, step: _assign(node.get(step, {}), rest, value, override, step)}
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
