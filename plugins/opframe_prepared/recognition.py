"""Telling the prepared layout from others by the shapes of its arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_LAYOUTS = (
    (re.compile(r"(train|test)/data_\d+\.hdf5:data"), "/{split}", 0),
    (re.compile(r"data_\d+\.hdf5:data"), "", 0),
    (re.compile(r"(train|test)\.h5:data"), "/{split}.h5", 1),
    (re.compile(r"(train|test)\.hdf5:data"), "/{split}.hdf5", 1),
)
"""Names of arrays in a folder, what the URL of the data goes on with, and how many axes come before those of space."""


def recognised(url: str, contents: Mapping[str, tuple[int, ...]]) -> Mapping[str, Any] | None:
    """The settings that read a file or a folder, if it has the prepared layout.

    A trajectory of five axes is taken for one in three dimensions, of fewer for one in two.
    """
    if "data" in contents:
        shape = contents["data"]
        return None if len(shape) not in (4, 5, 6) else _settings(url, shape[1:])
    for pattern, rest, before in _LAYOUTS:
        shapes = {key: shape for key, shape in contents.items() if pattern.fullmatch(key)}
        if shapes:
            shape = next(iter(shapes.values()))
            return _settings(url.rstrip("/") + rest, shape[before:])
    return None


def _settings(url: str, shape: tuple[int, ...]) -> Mapping[str, Any]:
    return {"url": url, **({"dimensions": 3} if len(shape) == 5 else {})}
