"""PDEArena's datasets, read from the files as they are published (Gupta and Brandstetter, 2022)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, final

from attrs import field, frozen

from opframe_registry import Component, Dataset, Location, Split, Trajectories, hookimpl

_SMOKE_FILE = re.compile(r"(?:.*/)?NavierStokes2D_(train|valid|test)_[^/]*\.h5:")
_SPHERE_FILE = re.compile(r"(train|valid|test)/(?:.*/)?[^/]*\.nc:pres")


@final
@frozen(kw_only=True)
class PDEArena(Dataset):
    """PDEArena: smoke in 2-D Navier-Stokes flow (also conditioned), shallow water on the sphere.

    The folder holds NavierStokes2D_{train,valid,test}_*.h5, or {train,valid,test}/**/*.nc with one run of the
    shallow-water model each. Training reads the files for train, or with `train_split` = "train+valid" also, after
    them, those for valid, as DPOT does; evaluation those that `test_split` names.
    """

    name: ClassVar[str] = "pdearena"
    url: Location = field(metadata={"help": "folder of the published files"})
    train_split: Literal["train", "train+valid"] = field(
        default="train", metadata={"help": "which published files are used for training"}
    )
    test_split: Literal["test", "valid"] = field(
        default="test", metadata={"help": "which published files are used for evaluation"}
    )

    def __attrs_post_init__(self) -> None:
        if self.train_split == "train+valid" and self.test_split == "valid":
            raise ValueError('test_split = "valid" would evaluate on what train_split = "train+valid" trains on')

    def splits(self) -> tuple[Split, ...]:
        """Training and test data, and the files for validation where they are neither. Raises DataError."""
        from opframe_pdearena.reader import has_validation

        return ("train", "validation", "test") if has_validation(self) else ("train", "test")

    def build(self, split: Split, cache: Path) -> Trajectories:
        """Open one split. Raises DataError naming the folder or file."""
        from opframe_pdearena.reader import open_pdearena

        return open_pdearena(self, split)

    @classmethod
    def recognise(cls, url: str, contents: Mapping[str, tuple[int, ...]]) -> Mapping[str, Any] | None:
        """A folder of the published files, or one of them, which stands for its folder."""
        if any(_SMOKE_FILE.match(key) or _SPHERE_FILE.match(key) for key in contents):
            return {"url": url}
        names = set(contents)
        if any(names >= {f"{split}/u", f"{split}/vx", f"{split}/vy"} for split in ("train", "valid", "test")):
            return {"url": url.rpartition("/")[0] or "."}
        root = re.match(r"(.+)/(?:train|valid|test)/.*\.nc$", url)
        return {"url": root[1]} if root and names >= {"u", "v", "div", "vor", "pres"} else None


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    return [PDEArena]
