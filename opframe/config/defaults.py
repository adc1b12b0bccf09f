"""What is laid under the tables of an experiment before they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opframe_registry import ConfigError

_LINES: Mapping[str, Any] = {"type": "json_lines"}
DEFAULTS: Mapping[str, Any] = {
    "normalizer": {"type": "none"},
    "metrics": [{"type": "relative_l2"}],
    "loggers": [_LINES, {"type": "tensorboard"}],
    "parallel": {},
}
"""Tables that an experiment has where its file does not name them."""

KEYS: Mapping[str, Mapping[str, Any]] = {"data": {"validation": 0.0}, "parallel": {"reduce": "float32"}}
"""Keys that came to a table later, with what they were taken for before."""


def completed(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of an experiment, also of one that was written before some of them were there, with all of them.

    Raises ConfigError where an old key and what has taken its place say different things.
    """
    laid = _with_lines({**DEFAULTS, **_with_normalizer(tables)})
    older = {name: {**keys, **laid[name]} for name, keys in KEYS.items() if isinstance(laid.get(name), Mapping)}
    return {**laid, **older}


def _with_lines(tables: dict[str, Any]) -> dict[str, Any]:
    """With the logger of JSON lines, which every run has, in front of the others."""
    loggers = tables["loggers"]
    if not isinstance(loggers, list) or any(_type(logger).rpartition(":")[2] == _LINES["type"] for logger in loggers):
        return tables
    return {**tables, "loggers": [_LINES, *loggers]}


def _type(table: Any) -> str:
    return str(table.get("type")) if isinstance(table, Mapping) else ""


def outdated(tables: Mapping[str, Any]) -> list[str]:
    """A line for each old key that tables have, saying what has taken its place."""
    old = _old_normalization(tables)
    return [] if old is None else [f"data.normalization is now a table: [normalizer] type = '{old}'; it means the same"]


def _old_normalization(tables: Mapping[str, Any]) -> Any:
    data = tables.get("data")
    return data.get("normalization") if isinstance(data, Mapping) else None


def _with_normalizer(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    """`data.normalization` was all that there was of normalizers: "none" or "dataset"."""
    old, new = _old_normalization(tables), tables.get("normalizer")
    if old is None:
        return tables
    if isinstance(new, Mapping) and new.get("type") != old:
        raise ConfigError(
            f"data.normalization = '{old}' is an old key for [normalizer] type = '{old}', but the type given there is "
            f"'{new.get('type', '')}'; leave out data.normalization"
        )
    data = {key: value for key, value in tables["data"].items() if key != "normalization"}
    return {"normalizer": {"type": old}, **tables, "data": data}
