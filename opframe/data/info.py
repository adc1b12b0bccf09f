"""What datasets are, in words; and which component reads what lies at a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import tomli_w
from attrs import evolve, frozen

from opframe.config import Problem, ProblemsError, make_converter, structure_table
from opframe.data.selection import Part
from opframe.describe import summary
from opframe_registry import Catalog, DataError, Dataset, Metadata

_KEPT = 10  # one of so many trajectories is kept for the test, if the files do not say which are
_UNITS = ("B", "kB", "MB", "GB", "TB")


def facts(part: Part, frames: int | None) -> dict[str, str]:
    """What one split's metadata says, as rows. `frames` is the length of a training window, where it is known."""
    metadata = part.source.metadata
    rows = {
        "channels": ", ".join(_channels(metadata)),
        "predicted": _predicted(metadata),
        "grid": _grid(metadata),
        "boundary": metadata.boundary,
        "time step": "unknown" if metadata.time_step is None else f"{metadata.time_step:g}",
        **{f"parameter {name}": _parameter(values) for name, values in sorted(metadata.parameters.items())},
        "source": metadata.source,
        "licence": metadata.license,
        "left out": ", ".join(map(str, part.excluded)),
        "rule": metadata.split,
        "data": _amount(metadata, frames),
    }
    return {name: words for name, words in rows.items() if words}


def _channels(metadata: Metadata) -> list[str]:
    units = metadata.units or ("",) * len(metadata.channels)
    return [f"{name} [{unit}]" if unit else name for name, unit in zip(metadata.channels, units, strict=True)]


def _predicted(metadata: Metadata) -> str:
    given = [name for name in metadata.channels if name not in metadata.predicted]
    return f"{', '.join(metadata.predicted)} (input only: {', '.join(given)})" if given else "all channels"


def _grid(metadata: Metadata) -> str:
    grid = " x ".join(map(str, metadata.grid))
    return f"{grid}, spacing {' x '.join(f'{step:.4g}' for step in metadata.spacing)}" if metadata.spacing else grid


def _parameter(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}, {len(set(values))} values"


def _amount(metadata: Metadata, frames: int | None) -> str:
    count, length = metadata.trajectories, metadata.frames
    words = [f"{count} {'trajectory' if count == 1 else 'trajectories'} of {length} frames"]
    if frames is not None:
        words.append(f"{count * max(length - frames + 1, 0)} windows of {frames}")
    words.append(f"{size(4 * count * length * len(metadata.channels) * prod(metadata.grid))} as float32")
    return ", ".join(words)


def size(count: float) -> str:
    """A number of bytes in words."""
    for unit in _UNITS[:-1]:
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} {_UNITS[-1]}"


def together(splits: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
    """The rows of several splits: what they agree on once, what they do not with the name of the split."""
    names = dict.fromkeys(name for rows in splits.values() for name in rows)
    table: list[tuple[str, str]] = []
    for name in names:
        words = {split: rows[name] for split, rows in splits.items() if name in rows}
        if len(set(words.values())) == 1 and len(words) == len(splits) and name not in ("data", "rule"):
            table.append((name, next(iter(words.values()))))
        else:
            table += [(split if name == "data" else f"{name} ({split})", words) for split, words in words.items()]
    return table


@frozen(kw_only=True)
class Recognised:
    """A component that reads what lies at a path, and the settings with which it does."""

    component: Dataset
    settings: Mapping[str, Any]

    @property
    def words(self) -> str:
        """What the data look like."""
        return f"{self.component.name}: {summary(type(self.component)).rstrip('.')}"

    @property
    def snippet(self) -> str:
        """The table of a config that reads them."""
        return toml([{"type": self.component.name, **self.settings}])


def toml(tables: Sequence[Mapping[str, Any]], key: str = "datasets") -> str:
    """Tables of datasets as they stand in a config."""
    return "\n\n".join(f"[[{key}]]\n{tomli_w.dumps(table)}".strip() for table in tables)


def recognise(url: str, contents: Mapping[str, tuple[int, ...]], catalog: Catalog) -> list[Recognised]:
    """The installed components that read what lies there. Raises DataError where a plugin's settings are wrong.

    Where training and test data are not in files of their own, a tenth of the trajectories is kept for the test.
    """
    converter = make_converter(catalog)
    found = []
    for plugin, item in catalog.offers(Dataset):
        if not issubclass(item, Dataset):
            continue
        settings = item.recognise(url, contents)
        if settings is None:
            continue
        try:
            component: Dataset = structure_table(converter, item, dict(settings))
        except ProblemsError as error:
            raise DataError(f"plugin {plugin.name} recognises {url} with {_problems(error.problems)}") from None
        divided = _divided(component)
        chosen = {} if divided.test == component.test else {"test": divided.test}
        found.append(Recognised(component=divided, settings={**settings, **chosen}))
    return found


def _divided(component: Dataset) -> Dataset:
    """The component as it is if it can be trained on, else with some trajectories kept for the test if that helps."""
    try:
        component.build("train", Path())
    except DataError:
        try:
            have = component.build("test", Path()).metadata.trajectories
            divided = evolve(component, test=max(have // _KEPT, 1))
            divided.build("train", Path())
        except DataError:  # damaged, or not all there: said when it is opened
            return component
        return divided
    return component


def own_arrays(url: str, contents: Mapping[str, tuple[int, ...]]) -> str:
    """A table that reads the largest of some arrays, whose axes a person has to name; '' if there is none."""
    if not contents:
        return ""
    largest = max(contents, key=lambda path: prod(contents[path]))
    file, _, path = largest.rpartition(":")
    axes = {2: "t x", 3: "n t x", 4: "n t x y", 5: "n t x y c", 6: "n t x y z c"}.get(len(contents[largest]), "n t x y")
    where = f"{url.rstrip('/')}/{file}" if file else url
    named = {"path": path} if path else {}
    return toml([{"type": "array", "url": where, **named, "axes": axes, "test": 1}])


def _problems(problems: Sequence[Problem]) -> str:
    return "; ".join(f"{problem.place}: {problem.message}" for problem in problems)


def absolute(url: str) -> str:
    """A path as it can be written into a config anywhere."""
    return url if "://" in url else str(Path(url).expanduser().resolve())
