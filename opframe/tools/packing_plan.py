"""What `opframe data pack` is to make: one file for each split of each dataset, and the tables that read them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from opframe.files.stamps import stamps
from opframe.mixture.resizing import check_resize
from opframe.mixture.source import Source
from opframe.tools import packed
from opframe.tools.selection import Part
from opframe_registry import ConfigError, Dataset, Identity, Metadata
from opframe_registry.metadata import facts


@frozen(kw_only=True)
class Packing:
    """One file to be made: what a split gives to training, or to evaluation, on its own grid or on another."""

    part: Part
    path: Path
    grid: tuple[int, ...] | None = None
    compressed: bool = False

    @property
    def what(self) -> str:
        return f"{self.part.title} ({self.part.split})"

    @property
    def partial(self) -> Path:
        """What the file is called while it is written."""
        return self.path.with_name(self.path.name + ".partial")

    @property
    def source(self) -> Source:
        """What is packed: of training data also what is held out, which the packed ones hold out alike."""
        return evolve(self.part.source, held_out=())

    @property
    def metadata(self) -> Metadata:
        """What the file will say of itself."""
        metadata = self.source.metadata
        if self.grid is None or self.grid == metadata.grid:
            return metadata
        pairs = zip(metadata.grid, self.grid, strict=True)
        ratios = [own / new for own, new in pairs]
        spacing = metadata.spacing and tuple(step * ratio for step, ratio in zip(metadata.spacing, ratios, strict=True))
        return evolve(metadata, grid=self.grid, spacing=spacing)

    @property
    def fingerprint(self) -> str:
        """Changes with what is asked for, and with what the data say of themselves."""
        return packed.digest([self._asked(self.part.component.identity()), facts(self.metadata)])

    def made_from(self) -> packed.MadeFrom:
        """What the file is to be made from, as it is now."""
        known = self.part.component.identity(stamps, (self.part.split,))
        return packed.MadeFrom(asked=packed.digest(self._asked(known)), revision=known.revision, files=known.files)

    def _asked(self, known: Identity) -> dict[str, Any]:
        asked = {**known.numbers, **known.selection, "type": known.type}
        if self.part.split != "validation":  # what is held out is part of the training data
            asked.pop("validation", None)
        return {**asked, "split": self.part.split, "compressed": self.compressed}


def plan(parts: Sequence[Part], folder: Path, grid: tuple[int, ...] | None, compressed: bool) -> list[Packing]:
    """One file for each part, FOLDER/label/split.h5. Other than training data keep their grid: errors are of it.

    Raises ConfigError where two labels would share a folder, or data cannot come to the grid.
    """
    names: dict[str, str] = {}
    for part in parts:
        if names.setdefault(folder_name(part.component), part.title) != part.title:
            other = names[folder_name(part.component)]
            raise ConfigError(f"'{part.title}' and '{other}' would be packed into one folder; change a label")
        own = part.trajectories.metadata.grid
        if grid is not None and len(own) != len(grid):
            raise ConfigError(f"data.grid: {list(grid)} has {len(grid)} axes, but {part.title} has {len(own)}")
        if grid is not None and part.split == "train":
            check_resize(part.title, own, grid, part.resize, part.trajectories.metadata.missing)
    return [
        Packing(
            part=part,
            path=folder / folder_name(part.component) / f"{part.split}.h5",
            grid=grid if part.split == "train" else None,
            compressed=compressed,
        )
        for part in parts
    ]


def folder_name(component: Dataset) -> str:
    """A dataset's label as the name of a folder."""
    return re.sub(r"[^\w.+-]+", "_", component.title).lstrip(".") or "_"  # never a folder above


def tables(packings: Sequence[Packing], folder: str) -> list[dict[str, Any]]:
    """The tables of a config that read the packed files instead, one for each dataset."""
    components = dict.fromkeys(packing.part.component for packing in packings)
    return [_table(component, folder) for component in components]


def _table(component: Dataset, folder: str) -> dict[str, Any]:
    table: dict[str, Any] = {"type": "prepared", "label": component.title}
    table["url"] = f"{folder}/{folder_name(component)}/{{split}}.h5"
    if component.weight != 1.0:
        table["weight"] = component.weight
    if component.rollout is not None:
        table["rollout"] = component.rollout
    if component.validation is not None:
        table["validation"] = component.validation
    return table
