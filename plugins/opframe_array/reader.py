"""Opening arrays whose axes are named in the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

from opframe.console import counted
from opframe.files.location import NoArrayError, each, file_sizes, require_real
from opframe.readers.arrays import SPACE, ArrayTrajectories, Part, Variable
from opframe.readers.lengths import checked_lengths, is_numbered, lengths_of_files, numbered, runs, template
from opframe.readers.splits import Share, chosen, place, share
from opframe.readers.stores import Stores
from opframe_array import letters
from opframe_registry import DataError, Metadata, Split, did_you_mean

if TYPE_CHECKING:
    from opframe_array import ArrayDataset

_ARRAYS = 2**20  # of one file that are looked at for those of single trajectories


def open_array(component: ArrayDataset, split: Split) -> ArrayTrajectories:
    """The trajectories of one split. Raises DataError naming the file and what it holds."""
    axes = letters(component.axes)
    url = place(component.url, split)
    files = _files(component, url) if "*" in url else {url: None}
    stores = Stores()
    found = _look(component, stores, list(files), axes)
    count = sum(one.count for one in found.parts)
    part = share(component, split, url, count, separate=url != component.url)
    parts = chosen(found.parts, part)
    if found.lengths is None:
        used = [one.url for one in parts]
        lengths = lengths_of_files(used, files, lambda file: _axes(component, stores, file, axes)["t"])
    else:
        lengths = list(found.lengths[part.first : part.first + part.count])
    channels = _channels(component, next(iter(files)), found.first["c"])
    grid = tuple(found.first[letter] for letter in SPACE if letter in axes)
    _check_counts(component, channels, grid)
    metadata = Metadata(
        trajectories=part.count,
        frames=max(lengths),
        lengths=tuple(lengths),
        grid=grid,
        channels=channels,
        predicted=_predicted(component, channels),
        boundary=component.boundary,
        time_step=component.time_step,
        units=component.units or ("",) * len(channels),
        spacing=component.spacing,
        split=part.words,
        parameters=_parameters(component, part, count),
        vectors=_vectors(component, channels),
        missing=component.missing,
    )
    return ArrayTrajectories(
        metadata=metadata,
        parts=parts,
        variables=[Variable(path=template(component.path), axes=axes, channels=len(channels))],
        stores=stores,
    )


def _files(component: ArrayDataset, url: str) -> dict[str, int | None]:
    """The files that match a URL with `*`, in the order of their names, and their sizes."""
    folder, _, _ = url[: url.index("*")].rpartition("/")
    files = file_sizes(folder or ".", url[len(folder) + 1 :] if folder else url)
    if not files:
        raise DataError(f"{component.title}: nothing matches {url}")
    return dict(sorted(files.items()))


@frozen(kw_only=True)
class _Found:
    """What files hold: the length of each axis of the first array, by its letter, and which trajectories there are.

    `lengths` are the frames of each; None where every file is one trajectory, and is asked only if it is used.
    """

    first: Mapping[str, int]
    parts: Sequence[Part]
    lengths: Sequence[int] | None = None


def _look(component: ArrayDataset, stores: Stores, files: Sequence[str], axes: str) -> _Found:
    """Raises DataError naming the file and what it holds."""
    if is_numbered(component.path):
        found = each(lambda file: _numbered(component, stores, file, axes), files)
    elif "n" in axes:
        found = each(lambda file: _many(component, stores, file, axes), files)
    else:
        return _Found(first=_axes(component, stores, files[0], axes), parts=[Part(url=file) for file in files])
    return _Found(
        first=found[0].first,
        parts=[part for one in found for part in one.parts],
        lengths=[length for one in found for length in one.lengths or ()],
    )


def _many(component: ArrayDataset, stores: Stores, url: str, axes: str) -> _Found:
    """The trajectories of one array, which may be padded."""
    found = _axes(component, stores, url, axes)
    count, frames = found["n"], found["t"]
    lengths: Sequence[int] = [frames] * count
    if component.lengths:
        lengths = checked_lengths(url, component.lengths, stores.array(url, component.lengths), count, frames)
    return _Found(first=found, parts=[Part(url=url, count=count, frames=frames)], lengths=lengths)


def _numbered(component: ArrayDataset, stores: Stores, url: str, axes: str) -> _Found:
    """The trajectories of a file that has an array for each."""
    shapes = numbered(url, component.path, stores.store(url).shapes(_ARRAYS))
    path = template(component.path)
    found = [_by_letter(component, url, path.format(n=number), shape, axes) for number, shape in shapes.items()]
    return _Found(first=found[0], parts=runs(url, list(shapes)), lengths=[one["t"] for one in found])


def _axes(component: ArrayDataset, stores: Stores, url: str, axes: str) -> dict[str, int]:
    """The length of each axis of a file's array; 1 where it has no axis c."""
    try:
        array = stores.array(url, component.path)
    except NoArrayError as error:
        raise DataError(f"{error}; the key 'path' says which one is read") from error
    require_real(url, component.path, np.dtype(array.dtype))
    return _by_letter(component, url, component.path, tuple(array.shape), axes)


def _by_letter(component: ArrayDataset, url: str, path: str, shape: tuple[int, ...], axes: str) -> dict[str, int]:
    """Raises DataError where the axes are not those of the shape."""
    named = f"'{path}'" if path else "the array"
    if len(shape) != len(axes):
        raise DataError(
            f"{url}: {named} has shape {shape}, but axes = '{component.axes}' names {counted(len(axes), 'axis')}"
        )
    for letter, length in zip(axes, shape, strict=True):
        if letter == "1" and length != 1:
            raise DataError(
                f"{url}: {named} has shape {shape}, in which the axis that axes = '{component.axes}' "
                f"calls 1 has length {length}"
            )
    return {"c": 1, **dict(zip(axes, shape, strict=True))}


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
