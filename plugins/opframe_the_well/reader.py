"""Finding the files of a dataset of The Well, and joining what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from opframe.files.location import each, find_files
from opframe.readers.arrays import ArrayTrajectories, Part
from opframe.readers.splits import Share, chosen, share
from opframe.readers.stores import Stores
from opframe_registry import DataError, Metadata, Split
from opframe_the_well.specification import Description, describe

if TYPE_CHECKING:
    from opframe_the_well import TheWell

_SUFFIXES = (".hdf5", ".h5")


def open_the_well(component: TheWell, split: Split) -> ArrayTrajectories:
    """The trajectories of one split. Raises DataError naming the folder, or the file and what it holds."""
    url = component.url.replace("{split}", split)
    single = url.endswith(_SUFFIXES)
    files = [url] if single else _folder(component, url, split)
    stores = Stores()
    described = each(lambda file: stores.ask(file, describe, "the_well"), files)
    _agree(files, described)
    have = sum(item.trajectories for item in described)
    part = share(component, split, url, have, separate=not single or url != component.url)
    whole = [Part(url=file, count=item.trajectories) for file, item in zip(files, described, strict=True)]
    return ArrayTrajectories(
        metadata=_metadata(described, part),
        parts=chosen(whole, part),
        variables=[field.variable for field in described[0].fields],
        stores=stores,
    )


def _folder(component: TheWell, url: str, split: Split) -> list[str]:
    name = component.test_split if split == "test" else "train"
    for folder in (f"data/{name}", name):
        files = [file for suffix in _SUFFIXES for file in find_files(url, f"{folder}/*{suffix}")]
        if files:
            return files
    raise DataError(
        f"{component.title}: {url} holds neither data/{name}/*.hdf5 nor {name}/*.hdf5 (or does not exist); "
        "expected the folder of a dataset, which holds train, valid and test"
    )


def _agree(files: Sequence[str], described: Sequence[Description]) -> None:
    """Raises DataError unless all files have the frames, the grid and the fields of the first."""
    first = described[0]
    for url, item in zip(files, described, strict=True):
        for what, have, want in (
            ("frames", item.frames, first.frames),
            ("grid", item.grid, first.grid),
            ("fields", _field_words(item), _field_words(first)),
        ):
            if have != want:
                raise DataError(f"{url}: its {what} are {have}, but those of {files[0]} are {want}")


def _field_words(item: Description) -> str:
    return ", ".join(f"{field.variable.path} ({' '.join(field.variable.axes)})" for field in item.fields)


def _metadata(described: Sequence[Description], part: Share) -> Metadata:
    first = described[0]
    channels = tuple(name for field in first.fields for name in field.channels)
    return Metadata(
        trajectories=part.count,
        frames=first.frames,
        grid=first.grid,
        channels=channels,
        predicted=tuple(name for field in first.fields if field.predicted for name in field.channels),
        boundary=first.boundary if all(item.boundary == first.boundary for item in described) else "unknown",
        time_step=first.time_step,
        source=f"The Well, {first.name} (Ohana et al., 2024)",
        license="CC BY 4.0",
        units=("",) * len(channels),
        spacing=first.spacing,
        parameters={name: _values(described, name, part) for name in _names(described)},
        vectors=tuple(field.channels for field in first.fields if field.vector),
        split=part.words,
    )


def _names(described: Sequence[Description]) -> list[str]:
    """The parameters that all files have, in the order of the first."""
    return [name for name in described[0].parameters if all(name in item.parameters for item in described)]


def _values(described: Sequence[Description], name: str, part: Share) -> tuple[float, ...]:
    """A parameter for each trajectory of a share, or once where all are the same."""
    values: list[float] = []
    for item in described:
        found = item.parameters[name]
        values.extend(found * item.trajectories if len(found) == 1 else found)
    values = values[part.first : part.first + part.count]
    return tuple(values[:1]) if len(set(values)) == 1 else tuple(values)
