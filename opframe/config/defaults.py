"""What is laid under the tables of an experiment before they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULTS: Mapping[str, Any] = {}
"""Tables that an experiment has where its file does not name them."""

KEYS: Mapping[str, Mapping[str, Any]] = {"data": {"validation": 0.0}}
"""Keys that came to a table later, with what they were taken for before."""


def completed(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of an experiment, also of one that was written before some of them were there, with all of them."""
    laid = {**DEFAULTS, **tables}
    older = {name: {**keys, **laid[name]} for name, keys in KEYS.items() if isinstance(laid.get(name), Mapping)}
    return {**laid, **older}
