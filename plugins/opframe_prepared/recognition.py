"""Telling the prepared layout from others by the shapes of its arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_LAYOUTS = (
    (re.compile(r"(train|test)/data_\d+\.hdf5:data"), "/{split}", 0),
    (re.compile(r"data_\d+\.hdf5:data"), "", 0),
    (re.compile(r"(train|test)\.h5:data"), "/{split}.h5", 1),
    (re.compile(r"(train|test)\.hdf5:data"), "/{split}.hdf5", 1),
)
"""Names of arrays in a folder, what the URL of the data goes on with, and how many axes come before those of space."""


_PACKED = {"checksums", "statistics/mean"}  # what lies beside `data` in the files of `opframe data pack`
_FEW = 8  # channels at most, if nothing says which axis they are


def recognised(
    url: str, contents: Mapping[str, tuple[int, ...]]
) -> Mapping[str, Any] | Sequence[Mapping[str, Any]] | None:
    """The settings that read a file or a folder, if it can be of the prepared layout.

    A folder is known by the names of its files, unless it is not clear how many axes of space there are. A lone array
    `data` may be of any layout.
    """
    if "data" in contents:
        if not url.lower().endswith((".h5", ".hdf5")):
            return None
        if set(contents) >= _PACKED:
            return {"url": url}
        return _readings(url, contents["data"][1:])
    for pattern, rest, before in _LAYOUTS:
        shapes = {key: shape for key, shape in contents.items() if pattern.fullmatch(key)}
        if shapes:
            found = _readings(url.rstrip("/") + rest, next(iter(shapes.values()))[before:])
            return found[0] if len(found) == 1 else found
    return None


def _readings(url: str, shape: tuple[int, ...]) -> list[Mapping[str, Any]]:
    """The numbers of space axes with which a trajectory (*grid, T, C) or (*grid, T) makes sense."""
    found: list[Mapping[str, Any]] = []
    for space in (2, 3, 1):
        channels = shape[space + 1 :]
        if len(channels) > 1 or len(shape) <= space or shape[space] < 2 or any(count > _FEW for count in channels):
            continue
        found.append({"url": url, **({} if space == 2 else {"dimensions": space})})
    return found
