"""What the data that weights were trained on were normalised by: kept with them, and compared with other data."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen

from opframe.mixture.normalization import Normalization
from opframe.mixture.source import Source
from opframe_registry import ConfigError

if TYPE_CHECKING:
    from opframe.weights.pretrained import Pretrained

_NEAR = 1e-3
"""Statistics that differ by less, as a part of the deviation, count as the same: other machines round otherwise."""


@frozen(kw_only=True)
class DatasetNormalization:
    """What the channels of one dataset were normalised by, in its own units. Raises ValueError unless it can be."""

    dataset: str = field(metadata={"help": "its title among those that were trained on"})
    channels: tuple[str, ...] = field(metadata={"help": "its channels"})
    mean: tuple[float, ...] = field(metadata={"help": "of each channel"})
    deviation: tuple[float, ...] = field(metadata={"help": "of each channel, above 0"})

    def __attrs_post_init__(self) -> None:
        if not len(self.channels) == len(self.mean) == len(self.deviation):
            raise ValueError("channels, mean and deviation have one entry for each channel, but differ in length")
        if not all(map(isfinite, (*self.mean, *self.deviation))) or min(self.deviation, default=1.0) <= 0:
            raise ValueError("mean and deviation must be finite, and each deviation above 0")

    def numbers(self) -> Normalization:
        """What frames are normalised and restored by."""
        return Normalization(mean=self.mean, deviation=self.deviation)

    def in_words(self) -> str:
        """As `temperature 287 ± 10`, for each channel."""
        each = zip(self.channels, self.mean, self.deviation, strict=True)
        return ", ".join(f"{channel} {mean:g} ± {deviation:g}" for channel, mean, deviation in each)

    def is_near(self, other: DatasetNormalization) -> bool:
        """Whether the other makes the same of data, but for rounding."""
        pairs = zip(self.mean, self.deviation, other.mean, other.deviation, strict=False)
        return len(self.mean) == len(other.mean) and all(
            abs(mean - theirs) <= _NEAR * deviation and abs(deviation - their_deviation) <= _NEAR * deviation
            for mean, deviation, theirs, their_deviation in pairs
        )


def normalizations(sources: Iterable[Source]) -> tuple[DatasetNormalization, ...]:
    """What opened datasets are normalised by; those of which it is not known, or that are not, are left out."""
    return tuple(
        DatasetNormalization(
            dataset=source.title,
            channels=source.metadata.channels,
            mean=source.normalization.mean,
            deviation=source.normalization.deviation,
        )
        for source in sources
        if source.normalization is not None
    )


def differing(there: Iterable[DatasetNormalization], here: Iterable[DatasetNormalization]) -> list[str]:
    """A line, to follow another, for each dataset of both that is not normalised by the same numbers."""
    known = {item.dataset: item for item in there}
    return [
        f"\n  {item.dataset}: {known[item.dataset].in_words()} there, {item.in_words()} here"
        for item in here
        if item.dataset in known and not known[item.dataset].is_near(item)
    ]


def without_numbers(location: str) -> str:
    """What to say of weights whose data were normalised nobody knows by what."""
    return (
        f"{location} was trained on normalised data, but their mean and deviation are not kept with it; of a run, "
        "'opframe run CONFIG --resume' writes them into its model.toml, and they can be written into the file by "
        "hand, as [[normalization]] with dataset, channels, mean and deviation"
    )


def recovered(run: Path) -> tuple[DatasetNormalization, ...]:
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


def _of_dataset(table: Mapping[str, Any], cache: Path) -> DatasetNormalization | None:
    """What the one answer of the cache is on a dataset of a config, if there is one."""
    answers = {_read(path, table) for path in cache.glob(f"{table['type']}-*.json")} - {None}
    return answers.pop() if len(answers) == 1 else None


def _read(path: Path, table: Mapping[str, Any]) -> DatasetNormalization | None:
    """Statistics of a cache, if they are of all training frames of a dataset with the keys of this table.

    Keys that are null there are not set here. A file that is damaged or of another form is of no dataset.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        of = record["of"]
        settings = {key: value for key, value in of["settings"].items() if key != "revision"}
        if of["frames"] != of["metadata"]["frames"]:  # of zero-shot data, the frames of history alone
            return None
        if any(table.get(key) != value for key, value in settings.items()):
            return None
        return DatasetNormalization(
            dataset=table.get("label") or table["type"],
            channels=tuple(record["channels"]),
            mean=tuple(record["mean"]),
            deviation=tuple(record["deviation"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def check_normalization(
    pretrained: Pretrained, normalization: Literal["none", "dataset"], here: Sequence[DatasetNormalization]
) -> None:
    """Raises ConfigError that says both, unless data are normalised as those that the weights were trained on.

    `normalization` is that of the experiment, `here` what it normalises its training data by, as far as it is known.
    A dataset of which the weights know nothing may have any statistics.
    """
    there = pretrained.header.origin.normalization
    changed = "or, to train on data that are normalised otherwise, state it by init.normalization = 'changed'"
    if there != normalization:
        raise ConfigError(
            f"init.from: {pretrained.location} was trained with data.normalization = '{there}', but here it is "
            f"'{normalization}'; set data.normalization = '{there}', {changed}"
        )
    lines = differing(pretrained.header.normalization, here)
    if lines:
        raise ConfigError(
            f"init.from: {pretrained.location} was trained on data that were normalised by another mean and deviation:"
            + "".join(lines)
            + "\nset the keys of the dataset as they were (its files, train, test, exclude, stride), give it another "
            f"label if it is another one, {changed}"
        )
