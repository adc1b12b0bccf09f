"""Datasets of NetCDF files, one trajectory a file, for opframe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, final

from attrs import Attribute, field, frozen

from opframe_registry import Component, Dataset, Location, Split, Trajectories, hookimpl


@final
@frozen(kw_only=True)
class NetCDF(Dataset):
    """NetCDF files of one trajectory each, which may differ in length and have points without a value.

    The first dimension of a variable is time, the others are the grid, whose coordinates are taken to be uniform.
    """

    name: ClassVar[str] = "netcdf"
    url: Location = field(metadata={"help": "folder of the files of a split, with {split} for its name"})
    variables: tuple[str, ...] = field(default=(), metadata={"help": "channels (default: all variables in time)"})
    parameters: tuple[str, ...] = field(
        default=(),
        metadata={"help": "attributes of a file that are numbers of the equation; unknown where it has none"},
    )
    boundary: str = field(default="unknown", metadata={"help": "what happens at the sides of the grid, in a word"})

    @url.validator
    def _has_splits(self, attribute: Attribute[Location], value: Location) -> None:
        if "{split}" not in value:
            raise ValueError(f"url = '{value}' is one folder for all splits; write {{split}} where their names differ")

    def splits(self) -> tuple[Split, ...]:
        """With a validation split where there is a folder of that name, and it is to be used."""
        there = self.validation != 0 and self.folder("validation").is_dir()
        return ("train", "validation", "test") if there else ("train", "test")

    def folder(self, split: Split) -> Path:
        """Where the files of a split are."""
        return Path(self.url.replace("{split}", split))

    def wanted(self, split: Split) -> int | None:
        """How many trajectories of a split are used; None: all."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]

    def build(self, split: Split, cache: Path) -> Trajectories:
        """Open the files of one split in the order of their names. Raises DataError."""
        from opframe_netcdf.files import open_files

        return open_files(self, split)


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    return [NetCDF]
