"""Datasets in the prepared layout (DPOT protocol), from anything fsspec opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

from attrs import field, frozen
from attrs.validators import in_

from opframe_registry import Component, Dataset, Location, Split, Trajectories, hookimpl


@final
@frozen(kw_only=True)
class Prepared(Dataset):
    """HDF5 in the prepared layout: one file of trajectories, or one file for each trajectory.

    A file holds a dataset `data` of shape (N, *grid, T, C); in a folder, each `data_{i}.hdf5` holds one of
    shape (*grid, T, C), with a T of its own. A missing channel axis means C = 1. A dataset `lengths` (N,) beside
    `data` says how many frames of each trajectory are no padding. `{split}` in the URL stands for train or test, and
    for validation, or valid, where there is such a file.
    Without it what is there is cut by position: the first `train` trajectories and the last `test` ones;
    where only `train` or neither is given, the rest or all of it is evaluated.
    Without `channels`, the names stored with the data are used, else c0, c1, ….
    Files whose `data` has an attribute `axes`, such as "n t c x y", are read in that order: `opframe data pack` makes
    such files, in which a window is one run of bytes.
    """

    name: ClassVar[str] = "prepared"
    url: Location = field(
        metadata={"help": "HDF5 file, or folder of data_{i}.hdf5; {split} becomes train, test or validation"}
    )
    channels: tuple[str, ...] | None = field(default=None, metadata={"help": "channel names, in the file's order"})
    predicted: tuple[str, ...] | None = field(
        default=None, metadata={"help": "channels that are predicted (default: all)"}
    )
    dimensions: int = field(default=2, validator=in_((1, 2, 3)), metadata={"help": "number of space axes"})

    def splits(self) -> tuple[Split, ...]:
        """Training and test data, and validation data where there are files for it. Raises DataError."""
        from opframe.readers.splits import splits_at

        return splits_at(self.url)

    def build(self, split: Split, cache: Path) -> Trajectories:
        """Open one split. Raises DataError naming the file."""
        from opframe_prepared.reader import open_prepared

        return open_prepared(self, split)

    @classmethod
    def recognise(
        cls, url: str, contents: Mapping[str, tuple[int, ...]]
    ) -> Mapping[str, Any] | Sequence[Mapping[str, Any]] | None:
        """A file with `data`, a folder of data_{i}.hdf5, or one of either for each split."""
        from opframe_prepared.recognition import recognised

        return recognised(url, contents)


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    return [Prepared]
