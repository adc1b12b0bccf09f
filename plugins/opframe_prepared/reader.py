"""Finding the files of a prepared dataset and saying what is in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve

from opframe.data.arrays import SPACE, ArrayTrajectories, Part, Variable
from opframe.data.storage import find_files, inspect
from opframe_registry import DataError, Metadata, Split, did_you_mean

if TYPE_CHECKING:
    from opframe_prepared import Prepared


def open_prepared(component: Prepared, split: Split) -> ArrayTrajectories:
    """The trajectories of one split. Raises DataError naming the file and what it holds."""
    url = component.url.replace("{split}", split)
    single = url.endswith((".h5", ".hdf5"))
    files = [url] if single else _folder(component, url)
    metadata, variable = _describe(component, files, single)
    have = metadata.trajectories
    if single and url == component.url:
        first, count = _cut(component, split, have)
    else:
        wanted = component.train if split == "train" else component.test
        first, count = 0, have if wanted is None else wanted
    if count < 1 or first < 0 or first + count > have:
        raise DataError(f"{component.title}: {split} = {count}, but {url} holds {have} trajectories")
    parts = [Part(url=url, first=first, count=count)] if single else [Part(url=file) for file in files[:count]]
    return ArrayTrajectories(metadata=evolve(metadata, trajectories=count), parts=parts, variables=[variable])


def _cut(component: Prepared, split: Split, have: int) -> tuple[int, int]:
    """First trajectory and number of a split, where one file holds both."""
    train, test = component.train, component.test
    if split == "test":
        count = test if test is not None else have - (train or 0)
        return have - count, count
    if train is None and test is None:
        raise DataError(
            f"{component.title}: {component.url} holds training and test data; "
            "set 'test' to the number of trajectories to keep for evaluation"
        )
    count = train if train is not None else have - (test or 0)
    if count + (test or 0) > have:
        raise DataError(
            f"{component.title}: train = {train} and test = {test} overlap; {component.url} holds {have} trajectories"
        )
    return 0, count


def _folder(component: Prepared, url: str) -> list[str]:
    """The files data_{i}.hdf5 of a folder, in the order of i."""
    numbered = {}
    for file in find_files(url, "data_*.hdf5"):
        if match := re.search(r"data_(\d+)\.hdf5$", file):
            numbered[int(match[1])] = file
    if not numbered:
        raise DataError(f"{component.title}: {url} holds no files data_{{i}}.hdf5 (or does not exist)")
    return [numbered[index] for index in sorted(numbered)]


def _describe(component: Prepared, files: list[str], single: bool) -> tuple[Metadata, Variable]:
    found = inspect(files[0], "data")
    shape = found.shape[1:] if single else found.shape
    space = component.dimensions
    if len(shape) not in (space + 1, space + 2):
        layout = "(N, *grid, T, C)" if single else "(*grid, T, C)"
        raise DataError(
            f"{files[0]}: 'data' has shape {found.shape}; expected {layout} with {space} space axes; "
            "set 'dimensions' if there are more or fewer"
        )
    has_channels = len(shape) == space + 2
    channels = _channels(component, files[0], found.attributes, shape[-1] if has_channels else 1)
    metadata = Metadata(
        trajectories=found.shape[0] if single else len(files),
        frames=shape[space],
        grid=shape[:space],
        channels=channels,
        predicted=_predicted(component, found.attributes, channels),
        boundary=str(found.attributes.get("boundary", "unknown")),
        time_step=float(found.attributes["time_step"]) if "time_step" in found.attributes else None,
        source=str(found.attributes.get("source", "")),
        license=str(found.attributes.get("license", "")),
    )
    axes = ("n" if single else "") + SPACE[:space] + "t" + ("c" if has_channels else "")
    return metadata, Variable(path="data", axes=axes, channels=len(channels))


def _channels(component: Prepared, url: str, attributes: Mapping[str, Any], count: int) -> tuple[str, ...]:
    stored = tuple(str(name) for name in attributes.get("channels", [f"c{index}" for index in range(count)]))
    channels = component.channels or stored
    if len(channels) != count:
        raise DataError(f"{component.title}: {len(channels)} channels named {channels}, but {url} holds {count}")
    return channels


def _predicted(component: Prepared, attributes: Mapping[str, Any], channels: tuple[str, ...]) -> tuple[str, ...]:
    predicted = component.predicted or tuple(str(name) for name in attributes.get("predicted", channels))
    for name in predicted:
        if name not in channels:
            raise DataError(
                f"{component.title}: predicted channel '{name}' is not among {channels}{did_you_mean(name, channels)}"
            )
    return tuple(name for name in channels if name in predicted)
