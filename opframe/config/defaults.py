"""What is laid under the tables of an experiment before they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LINES: Mapping[str, Any] = {"type": "json_lines"}
DEFAULTS: Mapping[str, Any] = {
    "loggers": [_LINES, {"type": "tensorboard"}],
}
"""Tables that an experiment has where its file does not name them."""


def completed(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of an experiment, also of one that was written before some of them were there, with all of them."""
    return _with_lines({**DEFAULTS, **tables})


def _with_lines(tables: dict[str, Any]) -> dict[str, Any]:
    """With the logger of JSON lines, which every run has, in front of the others."""
    loggers = tables["loggers"]
    if not isinstance(loggers, list) or any(_type(logger).rpartition(":")[2] == _LINES["type"] for logger in loggers):
        return tables
    return {**tables, "loggers": [_LINES, *loggers]}


def _type(table: Any) -> str:
    return str(table.get("type")) if isinstance(table, Mapping) else ""
