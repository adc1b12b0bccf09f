"""Opening arrays whose axes are named in the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from opframe.console import counted
from opframe.files.location import NoArrayError, each, find_files, require_real
from opframe.readers.arrays import SPACE, ArrayTrajectories, Part, Variable
from opframe.readers.splits import Share, chosen, share
from opframe.readers.stores import Stores
from opframe_array import letters
from opframe_registry import DataError, Metadata, Split, did_you_mean

if TYPE_CHECKING:
    from opframe_array import ArrayDataset


def open_array(component: ArrayDataset, split: Split) -> ArrayTrajectories:
    """The trajectories of one split. Raises DataError naming the file and what it holds."""
    axes = letters(component.axes)
    url = component.url.replace("{split}", split)
    files = _files(component, url) if "*" in url else [url]
    stores = Stores()
    lengths = _lengths(component, stores, files[0], axes)
    several = each(lambda file: _lengths(component, stores, file, axes), files if "n" in axes else ())
    counts = [one["n"] for one in several] or [1] * len(files)
    part = share(component, split, url, sum(counts), separate=url != component.url)
    channels = _channels(component, files[0], lengths["c"])
    grid = tuple(lengths[letter] for letter in SPACE if letter in axes)
    _check_counts(component, channels, grid)
    metadata = Metadata(
        trajectories=part.count,
        frames=lengths["t"],
        grid=grid,
        channels=channels,
        predicted=_predicted(component, channels),
        boundary=component.boundary,
        time_step=component.time_step,
        units=component.units or ("",) * len(channels),
        spacing=component.spacing,
        split=part.words,
        parameters=_parameters(component, part, sum(counts)),
        vectors=_vectors(component, channels),
        missing=component.missing,
    )
    path = component.path.replace("{", "{{").replace("}", "}}")  # in a Variable braces stand for a number
    return ArrayTrajectories(
        metadata=metadata,
        parts=chosen([Part(url=file, count=count) for file, count in zip(files, counts, strict=True)], part),
        variables=[Variable(path=path, axes=axes, channels=len(channels))],
        stores=stores,
    )


def _files(component: ArrayDataset, url: str) -> list[str]:
    """The files that match a URL with `*`, in the order of their names."""
    folder, _, _ = url[: url.index("*")].rpartition("/")
    files = find_files(folder or ".", url[len(folder) + 1 :] if folder else url)
    if not files:
        raise DataError(f"{component.title}: nothing matches {url}")
    return sorted(files)


def _lengths(component: ArrayDataset, stores: Stores, url: str, axes: str) -> dict[str, int]:
    """The length of each axis of a file's array; 1 where it has no axis c."""
    try:
        array = stores.array(url, component.path)
    except NoArrayError as error:
        raise DataError(f"{error}; the key 'path' says which one is read") from error
    shape = tuple(array.shape)
    if len(shape) != len(axes):
        raise DataError(
            f"{url}: {_named(component)} has shape {shape}, but axes = "
            f"'{component.axes}' names {counted(len(axes), 'axis')}"
        )
    require_real(url, component.path, np.dtype(array.dtype))
    for letter, length in zip(axes, shape, strict=True):
        if letter == "1" and length != 1:
            raise DataError(
                f"{url}: {_named(component)} has shape {shape}, in which the axis that axes = '{component.axes}' "
                f"calls 1 has length {length}"
            )
    return {"c": 1, **dict(zip(axes, shape, strict=True))}


def _named(component: ArrayDataset) -> str:
    return f"'{component.path}'" if component.path else "the array"


def _channels(component: ArrayDataset, url: str, count: int) -> tuple[str, ...]:
    channels = component.channels or tuple(f"c{index}" for index in range(count))
    if len(channels) != count:
        raise DataError(
            f"{component.title}: {counted(len(channels), 'channel')} named {channels}, but {url} holds {count}"
        )
    return channels


def _predicted(component: ArrayDataset, channels: tuple[str, ...]) -> tuple[str, ...]:
    predicted = component.predicted or channels
    for name in predicted:
        if name not in channels:
            raise DataError(
                f"{component.title}: predicted channel '{name}' is not among {channels}{did_you_mean(name, channels)}"
            )
    return tuple(name for name in channels if name in predicted)


def _parameters(component: ArrayDataset, part: Share, have: int) -> dict[str, tuple[float, ...]]:
    """Those of a share of the trajectories. Raises DataError where a list does not have one number for each."""
    found = {}
    for name, values in component.parameters.items():
        if isinstance(values, tuple) and len(values) != have:
            raise DataError(
                f"{component.title}: parameters.{name} has {counted(len(values), 'value')}, but there are "
                f"{counted(have, 'trajectory')}"
            )
        found[name] = values[part.first : part.first + part.count] if isinstance(values, tuple) else (values,)
    return found


def _vectors(component: ArrayDataset, channels: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    for name in (name for vector in component.vectors for name in vector):
        if name not in channels:
            raise DataError(
                f"{component.title}: vectors names '{name}', which is not among {channels}"
                f"{did_you_mean(name, channels)}"
            )
    return component.vectors


def _check_counts(component: ArrayDataset, channels: tuple[str, ...], grid: tuple[int, ...]) -> None:
    """Raises DataError unless units, spacing and boundary, where they are set, fit the channels and the grid."""
    sides = () if isinstance(component.boundary, str) else component.boundary
    for key, values, expected, what in (
        ("units", component.units, len(channels), "channels"),
        ("spacing", component.spacing, len(grid), "axes of space"),
        ("boundary", sides, len(grid), "axes of space"),
    ):
        if values and len(values) != expected:
            raise DataError(f"{component.title}: {key} has {len(values)} values, but there are {expected} {what}")
