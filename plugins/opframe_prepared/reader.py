"""Finding the files of a prepared dataset and saying what is in them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from attrs import evolve, frozen

from opframe.console import counted
from opframe.files.location import NoArrayError, attribute, file_sizes, find_dataset, read_numbers
from opframe.readers.arrays import SPACE, ArrayTrajectories, Part, Variable
from opframe.readers.lengths import checked_lengths, lengths_of_files
from opframe.readers.splits import chosen, place, share
from opframe.readers.stores import Stores
from opframe_registry import Boundary, DataError, Metadata, Split, did_you_mean
from opframe_registry.metadata import Sides

if TYPE_CHECKING:
    from opframe_prepared import Prepared


_ATTRIBUTES = (
    "axes", "channels", "predicted", "units", "spacing", "boundary", "time_step", "source", "license", "vectors",
    "conserved", "missing"
)  # fmt: skip


@frozen(kw_only=True)
class Stored:
    """What a file says of `data`, and the numbers that packed files keep beside it, as the frames of trajectories."""

    shape: tuple[int, ...]
    attributes: Mapping[str, Any]
    parameters: Mapping[str, tuple[float, ...]]
    lengths: tuple[float, ...] | None = None
    checksums: tuple[bytes, ...] = ()


def open_prepared(component: Prepared, split: Split) -> ArrayTrajectories:
    """The trajectories of one split. Raises DataError naming the file and what it holds."""
    url = place(component.url, split)
    single = url.endswith((".h5", ".hdf5"))
    files = {url: None} if single else _folder(component, url)
    stores = Stores()
    found = stores.ask(next(iter(files)), _look_into, "prepared")
    metadata, variable = _describe(component, list(files), found, single)
    have = metadata.trajectories
    part = share(component, split, url, have, separate=url != component.url)
    whole = [Part(url=url, count=have, frames=metadata.frames)] if single else [Part(url=file) for file in files]
    parts = chosen(whole, part)
    if single:
        lengths = _lengths(url, found, have, metadata.frames)[part.first : part.first + part.count]
    else:
        lengths = lengths_of_files([one.url for one in parts], files, partial(_frames, stores, variable.axes))
    parameters = _parameters(found, part.first, part.count, have) if single else {}
    return ArrayTrajectories(
        metadata=evolve(
            metadata,
            trajectories=part.count,
            frames=max(lengths, default=metadata.frames),
            lengths=tuple(lengths),
            split=part.words,
            parameters=parameters,
        ),
        parts=parts,
        variables=[variable],
        stores=stores,
        checksums=found.checksums[part.first : part.first + part.count],
    )


def _folder(component: Prepared, url: str) -> dict[str, int | None]:
    """The files data_{i}.hdf5 of a folder, in the order of i, and their sizes."""
    numbered, sizes = {}, file_sizes(url, "data_*.hdf5")
    for file in sizes:
        if match := re.search(r"data_(\d+)\.hdf5$", file):
            numbered[int(match[1])] = file
    if not numbered:
        raise DataError(f"{component.title}: {url} holds no files data_{{i}}.hdf5 (or does not exist)")
    return {numbered[index]: sizes[numbered[index]] for index in sorted(numbered)}


def _look_into(url: str, file: h5py.File) -> Stored:
    """Raises DataError naming what is there instead of `data`."""
    try:
        data = find_dataset(url, file, "data")
    except NoArrayError as error:
        raise DataError(
            f"{error}; this layout has 'data' alone, type = \"array\" reads any by its key 'path'"
        ) from None
    group = file.get("parameters")
    named = group.items() if isinstance(group, h5py.Group) else ()
    parameters = {
        name: tuple(np.ravel(read_numbers(url, found)).tolist())
        for name, found in named
        if isinstance(name, str) and isinstance(found, h5py.Dataset)
    }
    attributes = {key: attribute(url, data, key) for key in _ATTRIBUTES if key in data.attrs}
    padded = file.get("lengths")
    lengths = tuple(np.ravel(read_numbers(url, padded)).tolist()) if isinstance(padded, h5py.Dataset) else None
    kept = file.get("checksums")
    several = isinstance(kept, h5py.Dataset) and kept.dtype == "u1" and kept.ndim == 2 and len(kept) == data.shape[0]
    checksums = tuple(row.tobytes() for row in kept[:]) if several else ()
    return Stored(shape=data.shape, attributes=attributes, parameters=parameters, lengths=lengths, checksums=checksums)


def _lengths(url: str, found: Stored, have: int, frames: int) -> list[int]:
    """The frames of each trajectory of a file. Raises DataError where what it says of them cannot be."""
    if found.lengths is None:
        return [frames] * have
    return list(checked_lengths(url, "lengths", np.array(found.lengths), have, frames))


def _frames(stores: Stores, axes: str, url: str) -> int:
    """The frames of a file of one trajectory. Raises DataError where it has other axes."""
    shape = stores.ask(url, _look_into, "prepared").shape
    if len(shape) != len(axes):
        raise DataError(f"{url}: 'data' has shape {shape}, expected the axes {' '.join(axes)} of the other files")
    return shape[axes.index("t")]


def _describe(component: Prepared, files: list[str], found: Stored, single: bool) -> tuple[Metadata, Variable]:
    attributes = found.attributes
    axes = _stored_axes(files[0], found, single) if "axes" in attributes else _axes(component, files[0], found, single)
    lengths = dict(zip(axes, found.shape, strict=True))
    stored = _stored_channels(files[0], attributes, lengths.get("c", 1))
    channels = _channels(component, files[0], stored, lengths.get("c", 1))
    grid = tuple(lengths[axis] for axis in SPACE if axis in lengths)
    [time_step] = _numbers(files[0], attributes, "time_step", 1) or (None,)
    [missing] = _numbers(files[0], attributes, "missing", 1) or (None,)
    metadata = Metadata(
        trajectories=lengths.get("n", len(files)),
        frames=lengths["t"],
        grid=grid,
        channels=channels,
        predicted=_predicted(component, files[0], attributes, channels),
        boundary=_boundary(attributes.get("boundary", "unknown"), len(grid)),
        time_step=time_step,
        source=str(attributes.get("source", "")),
        license=str(attributes.get("license", "")),
        units=_names(files[0], attributes, "units"),
        spacing=_numbers(files[0], attributes, "spacing", len(grid)) or None,
        vectors=tuple(_named(files[0], attributes, "vectors", stored, channels).values()),
        conserved=_named(files[0], attributes, "conserved", stored, channels),
        missing=missing,
    )
    return metadata, Variable(path="data", axes=axes, channels=len(channels))


def _axes(component: Prepared, url: str, found: Stored, single: bool) -> str:
    """The axes of the prepared layout. Raises DataError where the array has more or fewer."""
    shape, space = found.shape[1:] if single else found.shape, component.dimensions
    if len(shape) not in (space + 1, space + 2):
        layout = "(N, *grid, T, C)" if single else "(*grid, T, C)"
        raise DataError(
            f"{url}: 'data' has shape {found.shape}; expected {layout} with {space} space axes; "
            "set 'dimensions' if there are more or fewer"
        )
    return ("n" if single else "") + SPACE[:space] + "t" + ("c" if len(shape) == space + 2 else "")


def _stored_axes(url: str, found: Stored, single: bool) -> str:
    """The axes that a file names itself, as packed ones do. Raises DataError where they are not those of the array."""
    axes = "".join(str(found.attributes["axes"]).split())
    space = "".join(axis for axis in SPACE if axis in axes)
    needed = {"n", "t"} if single else {"t"}
    fit = len(axes) == len(found.shape) and len(set(axes)) == len(axes) and set(axes) - {"c", *space} == needed
    if not fit or space not in (SPACE[:1], SPACE[:2], SPACE):
        raise DataError(
            f"{url}: says of 'data' of shape {found.shape} that its axes are '{found.attributes['axes']}'; expected a "
            f"letter for each: {'n (trajectories), ' if single else ''}t, x, y, z and, if there is one, c (channels)"
        )
    return axes


def _parameters(found: Stored, first: int, count: int, have: int) -> dict[str, tuple[float, ...]]:
    """Numbers of the equation: those of a share of the trajectories."""
    return {
        name: values[first : first + count] if len(values) == have else values
        for name, values in found.parameters.items()
    }


def _stored_channels(url: str, attributes: Mapping[str, Any], count: int) -> tuple[str, ...]:
    return _names(url, attributes, "channels") or tuple(f"c{index}" for index in range(count))


def _channels(component: Prepared, url: str, stored: tuple[str, ...], count: int) -> tuple[str, ...]:
    channels = component.channels or stored
    if len(channels) != count:
        raise DataError(
            f"{component.title}: {counted(len(channels), 'channel')} named {channels}, but {url} holds {count}"
        )
    return channels


def _names(url: str, attributes: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of names in an attribute of `data`; none where it is not there. Raises DataError for anything else."""
    found = np.asarray(attributes.get(key, ()), dtype=object)
    if found.ndim != 1 or not all(isinstance(name, (str, bytes)) for name in found):
        raise DataError(f"{url}: says of 'data' that its {key} are {attributes[key]!r}; expected a list of names")
    return tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in found)


def _numbers(url: str, attributes: Mapping[str, Any], key: str, count: int) -> tuple[float, ...]:
    """Numbers in an attribute of `data`; none where it is not there. Raises DataError for others than `count`."""
    if key not in attributes:
        return ()
    found, words = np.ravel(attributes[key]), "a number" if count == 1 else f"{count} numbers"
    if found.dtype.kind not in "fiu" or len(found) != count:
        raise DataError(f"{url}: says of 'data' that its {key} is {attributes[key]!r}; expected {words}")
    return tuple(float(value) for value in found)


def _predicted(
    component: Prepared, url: str, attributes: Mapping[str, Any], channels: tuple[str, ...]
) -> tuple[str, ...]:
    predicted = component.predicted or _names(url, attributes, "predicted") or channels
    for name in predicted:
        if name not in channels:
            raise DataError(
                f"{component.title}: predicted channel '{name}' is not among {channels}{did_you_mean(name, channels)}"
            )
    return tuple(name for name in channels if name in predicted)


def _boundary(value: Any, axes: int) -> list[Sides]:
    """What an attribute says of each axis: one word for all, one for each, or as once written, `x open, y wall`.

    A word that nobody knows, which files may hold as they once could hold any, says nothing.
    """
    words = [value] if isinstance(value, str) else [str(word) for word in np.asarray(value, dtype=object).ravel()]
    if len(words) == 1 and "," in words[0]:
        words = [part.split(maxsplit=1)[-1] for part in words[0].split(",") if part.strip()]
    sides = [_sides(word) for word in words]
    if len(sides) not in (1, axes):
        return [(Boundary.UNKNOWN, Boundary.UNKNOWN)] * axes
    return sides * (axes if len(sides) == 1 else 1)


def _sides(words: str) -> Sides:
    try:
        found = [Boundary.of(word) for word in words.split(" to ")]
    except ValueError:
        return Boundary.UNKNOWN, Boundary.UNKNOWN
    return found[0], found[-1]


def _named(
    url: str, attributes: Mapping[str, Any], key: str, stored: tuple[str, ...], channels: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Groups of channels in an attribute, a JSON list or table of lists, by their names in the settings.

    Raises DataError for anything else.
    """
    renamed = dict(zip(stored, channels, strict=True))
    try:
        read = json.loads(attributes.get(key, "[]"))
        groups = read.items() if isinstance(read, dict) else enumerate(read)
        return {str(name): tuple(renamed[channel] for channel in group) for name, group in groups}
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{url}: says of 'data' that its {key} are {attributes[key]!r}; expected lists, in JSON, of its channels "
            f"{', '.join(stored)}"
        ) from error
