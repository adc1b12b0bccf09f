"""The Navier–Stokes files of the Fourier neural operator's authors, as they are published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

from attrs import field, frozen

from opframe_registry import Component, Dataset, Location, Split, Trajectories, hookimpl


@final
@frozen(kw_only=True)
class FNOMat(Dataset):
    """Vorticity of 2-D Navier–Stokes flow from MATLAB files as published by the authors of FNO (Li et al., 2021).

    A file has `u` (N, X, Y, T), the initial field `a` (N, X, Y) and the times `t`. Files of MATLAB 7.3 are HDF5, where
    the axes come reversed; of older ones the array is written once below OPFRAME_CACHE, when it is first read, and
    mapped into memory from there. x is the first axis of the grid in both. One channel, "vorticity"; the viscosity is
    known by the file's name.
    `{split}` in the URL stands for train or test. Without it the file is cut by position: the first `train`
    trajectories and the last `test` ones; where only `train` or neither is given, the rest or all of it is evaluated.
    """

    name: ClassVar[str] = "fno_mat"
    url: Location = field(metadata={"help": "file, like ns_V1e-3_N5000_T50.mat; {split} becomes train or test"})
    initial: bool = field(default=False, metadata={"help": "begin trajectories with the initial field, one frame more"})

    def build(self, split: Split, cache: Path) -> Trajectories:
        """Open one split. Raises DataError naming the file."""
        from opframe_fno_data.reader import open_fno_mat

        return open_fno_mat(self, split)

    @classmethod
    def recognise(cls, url: str, contents: Mapping[str, tuple[int, ...]]) -> Mapping[str, Any] | None:
        """The settings that read a file, if it has fields `u` and `a` that belong together."""
        field, initial = contents.get("u", ()), contents.get("a", ())
        fits = len(field) == 4 and initial in (field[:-1], field[1:])
        return {"url": url} if fits and url.lower().endswith(".mat") else None


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    """The components of this plugin."""
    return [FNOMat]
