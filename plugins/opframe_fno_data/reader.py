"""One split of a file of the FNO authors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from opframe.readers.arrays import ArrayTrajectories, Part, Variable
from opframe.readers.splits import Share, share
from opframe.readers.stores import Stores
from opframe_fno_data.contents import Contents, look_into
from opframe_registry import DataError, Metadata, Split, Trajectories, did_you_mean

if TYPE_CHECKING:
    from opframe_fno_data import FNOMat


def open_fno_mat(component: FNOMat, split: Split) -> Trajectories:
    """The trajectories of one split. Raises DataError naming the file and what it holds."""
    url = component.url.replace("{split}", split)
    stores = Stores()
    contents = look_into(stores, url)
    _check(url, contents)
    count = contents.shapes["u"][0]
    part = share(component, split, url, count, separate=url != component.url)
    metadata = _metadata(url, contents, part)
    later = ArrayTrajectories(
        metadata=metadata,
        parts=[Part(url=url, count=part.count, first=part.first)],
        variables=[Variable(path="u", axes="tyxn" if contents.backwards else "nxyt")],
        stores=stores,
    )
    return _with_initial(url, later, contents) if component.initial else later


def _check(url: str, contents: Contents) -> None:
    """Raises DataError unless `u` has four axes, of which those of `a` (or else `t`) say that they lie as expected."""
    shapes = contents.shapes
    if "u" not in shapes:
        raise DataError(f"{url}: has no array 'u'{did_you_mean('u', list(shapes))}; found: {_listed(contents)}")
    field = shapes["u"]
    agrees = len(field) == 4
    if "a" in shapes:
        agrees = agrees and shapes["a"] == field[:-1]
    elif len(contents.times):
        agrees = agrees and len(contents.times) == field[-1]
    if not agrees:
        expected = "u (T, Y, X, N) and a (Y, X, N)" if contents.backwards else "u (N, X, Y, T) and a (N, X, Y)"
        raise DataError(f"{url}: found {_listed(contents)}; expected {expected}, and T times in t")


def _listed(contents: Contents) -> str:
    """The arrays with their shapes as the file has them."""
    order = -1 if contents.backwards else 1
    return ", ".join(f"{name} {shape[::order]}" for name, shape in contents.shapes.items()) or "nothing"


def _metadata(url: str, contents: Contents, part: Share) -> Metadata:
    _, *grid, frames = contents.shapes["u"]
    viscosity = re.search(r"(?<![A-Za-z])V(\d*\.?\d+(?:e-?\d+)?)(?=[_.])", url.rsplit("/", 1)[-1])
    return Metadata(
        trajectories=part.count,
        frames=frames,
        grid=tuple(grid),
        channels=("vorticity",),
        predicted=("vorticity",),
        units=("",),
        boundary="periodic",
        time_step=_time_step(contents.times, frames),
        spacing=tuple(1 / size for size in grid),  # the unit torus
        parameters={"viscosity": (float(viscosity[1]),)} if viscosity else {},
        source="FNO, 2-D Navier–Stokes (Li et al., 2021)",
        split=part.words,
        conserved={"circulation": ("vorticity",)},
    )


def _time_step(times: NDArray[np.float64], frames: int) -> float | None:
    """Distance of the stored times; None if it is not known or not the same throughout."""
    if len(times) != frames or frames < 2:
        return None
    step = (times[-1] - times[0]) / (frames - 1)
    return float(f"{step:.6g}") if step > 0 and np.allclose(np.diff(times), step, rtol=1e-2) else None


def _with_initial(url: str, later: ArrayTrajectories, contents: Contents) -> InitialFirst:
    """Raises DataError where there is no initial field, or it is not one step before the first frame."""
    step = later.metadata.time_step
    if "a" not in contents.shapes:
        raise DataError(f"{url}: initial = true, but there is no array 'a'; found: {_listed(contents)}")
    if step is not None and not np.isclose(contents.times[0], step, rtol=1e-2):
        raise DataError(
            f"{url}: initial = true, but the initial field is {contents.times[0]:g} before the first frame and frames "
            f"are {step:g} apart"
        )
    initial = ArrayTrajectories(
        metadata=evolve(later.metadata, frames=1),
        parts=later.parts,
        variables=[Variable(path="a", axes="yxn" if contents.backwards else "nxy")],
        stores=later.stores,
    )
    return InitialFirst(evolve(later.metadata, frames=later.metadata.frames + 1), initial, later)


@frozen
class InitialFirst:
    """Trajectories that begin with their initial field as frame 0."""

    metadata: Metadata
    initial: ArrayTrajectories
    later: ArrayTrajectories

    def read(self, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
        """Frames [start, stop) as (T, C, *grid) float32. Raises DataError."""
        if not 0 <= start < stop <= self.metadata.frames:
            raise DataError(
                f"{self.later.parts[0].url}: frames {start}..{stop} asked for, but there are {self.metadata.frames}"
            )
        blocks = [self.initial.read(trajectory, 0, 1)] if start == 0 else []
        if stop > 1:
            blocks.append(self.later.read(trajectory, max(start - 1, 0), stop - 1))
        return np.concatenate(blocks)
