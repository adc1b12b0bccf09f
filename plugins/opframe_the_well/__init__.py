"""Datasets of The Well, read from the files as they are published (Ohana et al., 2024)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, final

from attrs import field, frozen

from opframe_registry import Component, Dataset, Location, Split, Trajectories, hookimpl

_FIELD = re.compile(r"(?:(?:data/)?(?:train|valid|test)/[^/]*\.(?:hdf5|h5):)?t[012]_fields/")

_SPLIT_FILE = re.compile(r"(.+?)(?:/data)?/(?:train|valid|test)/[^/]*\.(?:hdf5|h5)$")


@final
@frozen(kw_only=True)
class TheWell(Dataset):
    """The Well: many equations, with scalar, vector and tensor fields, in one HDF5 specification.

    The URL is a dataset's folder, with files in {train,valid,test} or in data/{train,valid,test}, or one file, in which
    `{split}` stands for train, valid or test. Without it a single file is cut by position: its first `train`
    trajectories and its last `test` ones. Components of vectors and tensors become channels: velocity_x, velocity_y, ….
    Fields that are constant in time, or the same in all trajectories, come last and are input only.
    """

    name: ClassVar[str] = "the_well"
    url: Location = field(
        metadata={"help": "folder of a dataset, or one HDF5 file; {split} becomes train, valid or test"}
    )
    test_split: Literal["test", "valid"] = field(
        default="test", metadata={"help": "which published files are used for evaluation"}
    )

    def splits(self) -> tuple[Split, ...]:
        """Training and test data, and the files for validation where they are not the test data. Raises DataError."""
        from opframe_the_well.reader import has_validation

        return ("train", "validation", "test") if has_validation(self) else ("train", "test")

    def build(self, split: Split, cache: Path) -> Trajectories:
        """Open one split. Raises DataError naming the folder or file."""
        from opframe_the_well.reader import open_the_well

        return open_the_well(self, split)

    @classmethod
    def recognise(cls, url: str, contents: Mapping[str, tuple[int, ...]]) -> Mapping[str, Any] | None:
        """A folder or file with fields in the groups t0_fields, t1_fields or t2_fields.

        A file for one of the splits stands for its folder, except behind HTTP, where folders can seldom be listed.
        """
        if not any(_FIELD.match(key) for key in contents):
            return None
        folder = None if url.startswith("http") else _SPLIT_FILE.match(url)
        return {"url": folder[1] if folder else url}


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    return [TheWell]
