"""PDEBench's files as they are published, from anything fsspec opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

from attrs import field, frozen

from opframe_registry import Component, Dataset, Location, Split, Trajectories, hookimpl


@final
@frozen(kw_only=True)
class PDEBench(Dataset):
    """PDEBench's HDF5 files as published (Takamoto et al., 2022); the file says which of the layouts it has.

    Compressible flow: channels velocity_x, velocity_y, density, pressure in 2-D, velocity_x, density, pressure in
    1-D and velocity_x, velocity_y, velocity_z, pressure, density in 3-D. Groups "0000", "0001", …: activator and
    inhibitor of diffusion–reaction, height of shallow water, concentration of diffusion–sorption. One array `tensor`
    (advection, Burgers, reaction–diffusion): u. Incompressible flow: velocity_x, velocity_y, particles, force_x,
    force_y, of which the force is the same in all frames and input only.
    Darcy flow is steady: a trajectory is the problem and its solution, two frames of the channels nu and u. The
    coefficient nu is in both and input only; u is 0 in frame 0 and the solution in frame 1, so that data.history = 1
    learns the map from coefficient to solution.
    `{split}` in the URL stands for train or test. Without it what is there is cut by position: the first `train`
    trajectories and the last `test` ones; where only `train` or neither is given, the rest or all of it is evaluated.
    Files of a folder follow each other in the order of the numbers in their names. The dam radius of each
    trajectory is in the metadata of local files only: it would take a thousand requests from a remote one.
    """

    name: ClassVar[str] = "pdebench"
    url: Location = field(
        metadata={"help": "file, folder or pattern like ns_incom_*.h5; {split} becomes train or test"}
    )
    channels: tuple[str, ...] | None = field(
        default=None, metadata={"help": "channels that are used, in this order (default: all)"}
    )

    def build(self, split: Split, cache: Path) -> Trajectories:
        """Open one split. Raises DataError naming the file."""
        from opframe_pdebench.reader import open_pdebench

        return open_pdebench(self, split)

    @classmethod
    def recognise(cls, url: str, contents: Mapping[str, tuple[int, ...]]) -> Mapping[str, Any] | None:
        """The settings that read a file, or a folder of files, if it has one of PDEBench's layouts."""
        from opframe_pdebench.recognition import recognised

        return {"url": url} if recognised(contents) else None


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    """The components of this plugin."""
    return [PDEBench]
