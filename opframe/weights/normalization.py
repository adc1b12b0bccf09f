"""What weights say of the data they were trained on, and of what those were normalised by; and comparing the two."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from attrs import field, frozen
from torch import Tensor

from opframe.config.building import build_normalization
from opframe.config.structure import to_tables
from opframe.mixture.normalization import Array, arrays, tensors
from opframe.mixture.source import Source
from opframe.mixture.statistics import state_of
from opframe_registry import ConfigError, Metadata, Normalization, Normalizer

if TYPE_CHECKING:
    from opframe.weights.pretrained import Weights

_NEAR = 1e-3
"""What a network is given may differ by so much, where 1 is usual: other machines round statistics otherwise."""
_SHOWN = 8  # numbers of an array that are shown


@frozen(kw_only=True)
class DatasetRecord:
    """What weights know of a dataset that they were trained on. Raises ValueError unless it can be."""

    title: str = field(metadata={"help": "its title among those that were trained on"})
    channels: tuple[str, ...] = field(metadata={"help": "its channels"})
    units: tuple[str, ...] = field(default=(), metadata={"help": "of each channel, where they are known"})
    vectors: tuple[tuple[str, ...], ...] = field(default=(), metadata={"help": "which channels form vectors"})
    parameters: tuple[str, ...] = field(default=(), metadata={"help": "numbers of its equation that were known"})
    state: Mapping[str, Array] = field(factory=dict, metadata={"help": "what the normalizer has learnt of it"})

    def __attrs_post_init__(self) -> None:
        if self.units and len(self.units) != len(self.channels):
            raise ValueError(f"{self.title} has {len(self.channels)} channels, but {len(self.units)} units")

    def metadata(self, grid: tuple[int, ...]) -> Metadata:
        """As much as is known of the data of training, which is what a normalizer is built for again."""
        return Metadata(
            trajectories=1,
            frames=1,
            grid=grid,
            channels=self.channels,
            predicted=self.channels,
            units=self.units,
            vectors=self.vectors,
        )

    def normalization(self, normalizer: Normalizer, grid: tuple[int, ...]) -> Normalization:
        """What frames are normalised and restored by. Raises ValueError where the state does not fit."""
        made = build_normalization(normalizer, self.metadata(grid))
        made.load_state_dict(tensors(self.state))
        return made

    def in_words(self) -> str:
        """As `temperature 287 ± 10` for each channel, or by the names of what was learnt."""
        if set(self.state) == {"mean", "deviation"}:
            pairs = zip(self.state["mean"].values, self.state["deviation"].values, strict=True)
            words = [f"{mean:g} ± {deviation:g}" for mean, deviation in pairs]
        elif self.state and all(len(array.values) == len(self.channels) for array in self.state.values()):
            each = zip(*(array.values for array in self.state.values()), strict=True)
            words = [" ".join(f"{name} {value:g}" for name, value in zip(self.state, row, strict=True)) for row in each]
        else:
            return ", ".join(f"{name} {_listed(array)}" for name, array in self.state.items())
        return ", ".join(f"{channel} {said}" for channel, said in zip(self.channels, words, strict=True))


def _listed(array: Array) -> str:
    shown = " ".join(f"{value:g}" for value in array.values[:_SHOWN])
    return f"({shown} ...)" if len(array.values) > _SHOWN else f"({shown})"


def records(sources: Iterable[Source]) -> tuple[DatasetRecord, ...]:
    """What weights are to know of opened datasets. Raises ConfigError for a state that cannot be written down."""
    return tuple(_record(source) for source in sources)


def _record(source: Source) -> DatasetRecord:
    metadata = source.metadata
    state = source.normalization.state_dict() if source.normalization else {}
    try:
        return DatasetRecord(
            title=source.title,
            channels=metadata.channels,
            units=metadata.units,
            vectors=metadata.vectors,
            parameters=tuple(metadata.parameters),
            state=arrays(state),
        )
    except ValueError as error:
        raise ConfigError(f"{source.title}: {error}") from error


def normalised(sources: Iterable[Source]) -> tuple[DatasetRecord, ...]:
    """The same of those that are normalised, as far as it is known by what."""
    return records(source for source in sources if source.normalization is not None)


def differing(normalizer: Normalizer, there: Iterable[DatasetRecord], here: Iterable[DatasetRecord]) -> list[str]:
    """A line, to follow another, for each dataset of both that one normalizer does not make the same of."""
    known = {item.title: item for item in there}
    return [
        f"\n  {item.title}: {known[item.title].in_words()} there, {item.in_words()} here"
        for item in here
        if item.title in known and not _is_near(normalizer, known[item.title], item)
    ]


def _is_near(normalizer: Normalizer, one: DatasetRecord, other: DatasetRecord) -> bool:
    """Whether a network is given the same, but for rounding: that of statistics, or of float32."""
    if len(one.channels) != len(other.channels):
        return False
    if one.state == other.state:
        return True
    grid = (1,)
    ours, theirs = one.normalization(normalizer, grid), other.normalization(normalizer, grid)
    usual = torch.linspace(-1, 1, 5).view(5, 1, 1).repeat(1, len(one.channels), 1)
    frames = ours.restore(usual)

    def seen(normalization: Normalization, frames: Tensor) -> Tensor:
        return normalization.apply(frames.clone())

    finest = (seen(ours, torch.nextafter(frames, frames.abs() * 2 + 1)) - seen(ours, frames)).abs().nan_to_num(0)
    difference = (seen(ours, frames) - seen(theirs, frames)).abs()
    return bool((difference <= _NEAR + 2 * finest).all())


def in_words(normalizer: Normalizer | None) -> str:
    """A normalizer as it stands in a config: `type = 'min_max', lowest = 0`."""
    tables = {"type": "none"} if normalizer is None else to_tables(normalizer)
    return ", ".join(f"{key} = {value!r}" for key, value in tables.items())


def without_numbers(location: str) -> str:
    """What to say of weights whose data were normalised nobody knows by what."""
    return (
        f"{location} was trained on normalised data, but their mean and deviation are not kept with it; of a run, "
        "'opframe run CONFIG --resume' writes them into its model.toml, and they can be written into the file by "
        "hand, as [[datasets]] with title, channels, and state.mean.values and state.deviation.values"
    )


def recovered(run: Path) -> tuple[DatasetRecord, ...]:
    """What the data of a run were normalised by, as its data cache has it: once, runs wrote it nowhere else.

    Empty unless the cache has it of every dataset, and has one answer.
    """
    try:
        config = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
        cache = Path(config["data"]["cache"]) / "statistics"
        found = [_of_dataset(table, cache) for table in config["datasets"]]
    except (OSError, ValueError, KeyError, TypeError):  # no config, or none of a run
        return ()
    complete = tuple(item for item in found if item is not None)
    return complete if len(complete) == len(found) else ()


def _of_dataset(table: Mapping[str, Any], cache: Path) -> DatasetRecord | None:
    """What the one answer of the cache is on a dataset of a config, if there is one."""
    answers = [answer for path in cache.glob(f"{table['type']}-*.json") if (answer := _read(path, table)) is not None]
    return answers[0] if answers and all(answer == answers[0] for answer in answers) else None


def _read(path: Path, table: Mapping[str, Any]) -> DatasetRecord | None:
    """Statistics of a cache, if they are of all training frames of a dataset with the keys of this table.

    Keys that are null there are not set here. A file that is damaged or of another form is of no dataset.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        of = record["of"]
        settings = {key: value for key, value in of["settings"].items() if key != "revision"}
        if of["frames"] != of["metadata"]["frames"] or "normalizer" in of:
            return None  # the frames of history of zero-shot data, or what runs have written down since
        if any(table.get(key) != value for key, value in settings.items()):
            return None
        return DatasetRecord(
            title=table.get("label") or table["type"],
            channels=tuple(record["channels"]),
            state=state_of(record),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def check_normalization(weights: Weights, normalizer: Normalizer, here: Sequence[DatasetRecord]) -> None:
    """Raises ConfigError that says both, unless data are normalised as those that the weights were trained on.

    `normalizer` is that of the experiment, `here` what it makes of its training data, as far as that is known. A
    dataset of which the weights know nothing may have any statistics.
    """
    header, changed = weights.header, "to train on data that are normalised otherwise, state it by init.normalization"
    there = header.normalizer
    if header.normalised != normalizer.changes or (header.normalised and there != normalizer):
        raise ConfigError(
            f"init.from: {weights.location} was trained with [normalizer] {in_words(there)}, but here it is "
            f"{in_words(normalizer)}; set it as it was, or, {changed} = 'changed'"
        )
    lines = differing(normalizer, header.datasets, here)
    if lines:
        raise ConfigError(
            f"init.from: {weights.location} was trained on data that were normalised by other numbers:"
            + "".join(lines)
            + "\nset the keys of the dataset as they were (its files, train, test, exclude, stride), give it another "
            f"label if it is another one, or, {changed} = 'changed'"
        )
