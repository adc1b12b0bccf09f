"""The part of an experiment file that speaks of data, for commands that need no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import Attribute, evolve, field, fields, frozen
from attrs.validators import min_len
from rich.console import Console

from opframe.config import building
from opframe.config.settings import Data, File, Resize, check_labels
from opframe.config.structure import ProblemsError, make_converter
from opframe.config.toml import load_tables
from opframe.console import Preparation
from opframe.mixture.source import Source, check_not_empty, excluded_of, open_dataset
from opframe.mixture.validation import hold_out
from opframe_registry import Catalog, ConfigError, Dataset, Objective, Split, Trajectories, did_you_mean

_CACHE = Path("data")  # where `data.cache` points when a file has no [data]


@frozen(kw_only=True)
class Selection:
    """Datasets and how they are used. A file without [data], such as a list of datasets, is one too."""

    data: Data | None = None
    datasets: tuple[Dataset, ...] = field(validator=min_len(1))
    zero_shot: tuple[Dataset, ...] = field(default=())
    files: tuple[File, ...] = field(default=())
    objective: Objective | None = None

    @zero_shot.validator
    def _labels_differ(self, attribute: Attribute[tuple[Dataset, ...]], value: tuple[Dataset, ...]) -> None:
        check_labels((*self.datasets, *value))

    @property
    def cache(self) -> Path:
        """The folder of prepared data."""
        return Path(self.data.cache) if self.data else _CACHE

    @property
    def frames(self) -> int | None:
        """Frames of a training window, history included; None where the file does not say."""
        return self.data.history + (self.objective.frames if self.objective else 1) if self.data else None


@frozen(kw_only=True)
class Part:
    """One split of a dataset, opened.

    `excluded` are the trajectories that training goes without, and so are `held_out`, which validation goes by.
    """

    component: Dataset
    split: Split
    trajectories: Trajectories
    excluded: tuple[int, ...] = ()
    held_out: tuple[int, ...] = ()
    resize: Resize = "bilinear"

    @property
    def title(self) -> str:
        return self.component.title

    @property
    def source(self) -> Source:
        """What training or evaluation sees of it: fewer trajectories and frames, as the dataset's keys say."""
        component = self.component
        return Source(
            title=component.title,
            weight=component.weight,
            rollout=component.rollout or 0,
            trajectories=self.trajectories,
            stride=component.stride,
            excluded=self.excluded,
            held_out=self.held_out,
            resize=self.resize,
        )


def load_selection(path: Path, catalog: Catalog, overrides: Sequence[str] = ()) -> Selection:
    """Read the datasets of an experiment file. Raises ConfigError listing every mistake."""
    tables = load_tables(path, overrides)
    known = [attribute.name for attribute in fields(Selection)]
    try:
        return make_converter(catalog).structure({key: tables[key] for key in known if key in tables}, Selection)
    except ProblemsError as error:
        lines = [f"  {': '.join(filter(None, (problem.place, problem.message)))}" for problem in error.problems]
        raise ConfigError("\n".join([f"{path}: its datasets cannot be used:", *lines])) from None


def limited(selection: Selection, titles: Sequence[str] = ()) -> list[Dataset]:
    """The datasets with these titles, or all, those that are only evaluated last. Raises ConfigError."""
    known = {dataset.title: None for dataset in (*selection.datasets, *selection.zero_shot)}
    for title in titles:
        if title not in known:
            raise ConfigError(
                f"no dataset is called '{title}'{did_you_mean(title, known)}; there are {', '.join(known)}"
            )
    every = (*selection.datasets, *selection.zero_shot)
    return [dataset for dataset in every if not titles or dataset.title in titles]


def splits(selection: Selection, chosen: Sequence[Dataset] | None = None) -> list[tuple[Dataset, Split]]:
    """What is used of datasets, or all, in their order: all splits, and the test data of what is only evaluated.

    Asked after `prepare`. Raises DataError.
    """
    test: list[Split] = ["test"]
    evaluated = {dataset.title for dataset in selection.zero_shot}
    return [
        (dataset, split)
        for dataset in (limited(selection) if chosen is None else chosen)
        for split in (test if dataset.title in evaluated else used_splits(dataset))
    ]


def used_splits(dataset: Dataset) -> list[Split]:
    """The splits of a dataset that is trained on: its validation split where it has one, and it is used."""
    found = building.splits_of(dataset)
    return [split for split in found if split != "validation" or dataset.validation != 0]


def prepare(components: Iterable[Dataset], cache: Path, console: Console) -> None:
    """Let the datasets make what they need, with a bar for each. Raises DataError."""
    with Preparation(console) as progress:
        for component in components:
            building.prepare(component, cache, progress)


def open_part(component: Dataset, split: Split, selection: Selection) -> Part:
    """Open one split. Raises DataError."""
    trajectories = open_dataset(component, split, selection.cache)
    check_not_empty(component, trajectories.metadata)
    part = Part(
        component=component,
        split=split,
        trajectories=trajectories,
        excluded=excluded_of(component, split, trajectories.metadata.trajectories),
        resize=selection.data.resize if selection.data else "bilinear",
    )
    if split != "train" or "validation" in building.splits_of(component):
        return part
    everywhere = selection.data.validation if selection.data else 0.0
    return evolve(part, held_out=hold_out(part.source, component.validation, everywhere)[0].held_out)
