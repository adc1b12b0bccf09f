"""Headers of weights that earlier editions wrote, brought to the form of now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def current(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a header, in which `origin.normalization` and `[[normalization]]` once stood for a normalizer."""
    origin, old = tables.get("origin"), tables.get("normalization")
    if "normalizer" in tables or "datasets" in tables or not isinstance(origin, Mapping):
        return dict(tables)
    made = {key: value for key, value in tables.items() if key != "normalization"}
    made["origin"] = {key: value for key, value in origin.items() if key != "normalization"}
    if origin.get("normalization", "none") != "none":
        made["normalizer"] = {"type": origin["normalization"]}
    if isinstance(old, list):
        made["datasets"] = [_dataset(item) for item in old]
    return made


def _dataset(table: Any) -> Any:
    """A `[[normalization]]` as a `[[datasets]]`; what is wrong in it is left, to be found where headers are read."""
    if not isinstance(table, Mapping):
        return table
    names = {"dataset": "title"}
    made = {names.get(key, key): value for key, value in table.items() if key not in ("mean", "deviation")}
    state = {key: {"values": table[key]} for key in ("mean", "deviation") if key in table}
    return {**made, "state": state}
