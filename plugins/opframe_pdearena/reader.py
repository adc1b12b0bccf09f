"""Finding PDEArena's files and saying what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from attrs import frozen

from opframe.data.arrays import ArrayTrajectories, Part, Variable
from opframe.data.splits import chosen, share
from opframe.data.storage import explained, find_dataset, find_files, open_hdf5
from opframe_registry import DataError, Metadata, Split

if TYPE_CHECKING:
    from opframe_pdearena import PDEArena

_SMOKE = ("u", "vx", "vy")
_SPHERE = {"u": "t1xy", "v": "t1xy", "div": "t1xy", "vor": "t1xy", "pres": "txy"}


def open_pdearena(component: PDEArena, split: Split) -> ArrayTrajectories:
    """The trajectories of one split. Raises DataError naming the folder, or the file and what it holds."""
    name = component.test_split if split == "test" else "train"
    if files := find_files(component.url, f"NavierStokes2D_{name}_*.h5"):
        return _open_smoke(component, split, name, files)
    if files := find_files(component.url, f"{name}/**/*.nc"):
        return _open_sphere(component, split, files)
    raise DataError(
        f"{component.title}: {component.url} holds neither NavierStokes2D_{name}_*.h5 nor {name}/**/*.nc "
        f"(or does not exist){_found(component.url)}"
    )


def _found(folder: str) -> str:
    names = [file.rsplit("/", 1)[-1] for file in find_files(folder, "*")]
    return f"; found: {', '.join(names[:8])}{', …' if len(names) > 8 else ''}" if names else ""


@frozen(kw_only=True)
class _SmokeFile:
    """What one file of the Navier-Stokes sets says of its trajectories; not every one gives their buoyancy."""

    part: Part
    frames: int
    grid: tuple[int, int]
    buoyancy: tuple[float, ...]
    time_step: float | None
    spacing: tuple[float, ...] | None


def _open_smoke(component: PDEArena, split: Split, name: str, files: Sequence[str]) -> ArrayTrajectories:
    described = [_describe_smoke(file, name) for file in files]
    first, have = described[0], sum(item.part.count for item in described)
    part = share(component, split, component.url, have, separate=True)
    buoyancy = [value for item in described for value in item.buoyancy][part.first : part.first + part.count]
    metadata = Metadata(
        trajectories=part.count,
        frames=first.frames,
        grid=first.grid,
        channels=_SMOKE,
        predicted=_SMOKE,
        boundary="closed",
        time_step=first.time_step,
        source="PDEArena, Navier-Stokes with smoke and buoyancy (Gupta and Brandstetter, 2022)",
        license="MIT",
        units=("",) * len(_SMOKE),
        spacing=first.spacing,
        parameters={"buoyancy": _shortened(buoyancy)} if len(buoyancy) == part.count else {},
        split=f"{part.words}, published as '{name}'",
    )
    variables = [Variable(path=f"{name}/{channel}", axes="ntxy") for channel in _SMOKE]
    return ArrayTrajectories(
        metadata=metadata, parts=chosen([item.part for item in described], part), variables=variables
    )


def _describe_smoke(url: str, name: str) -> _SmokeFile:
    with open_hdf5(url) as file, explained(url):
        shapes = {channel: find_dataset(url, file, f"{name}/{channel}").shape for channel in _SMOKE}
        shape = shapes["u"]
        if len(shape) != 4 or len(set(shapes.values())) != 1:
            found = ", ".join(f"{channel} {value}" for channel, value in shapes.items())
            raise DataError(f"{url}: expected {', '.join(_SMOKE)} of one shape (N, T, X, Y) in '{name}'; found {found}")
        buoyancy = _numbers(file, f"{name}/buo_y")
        steps = [_numbers(file, f"{name}/{key}") for key in ("dx", "dy")]
        # Of the times in the files, `t` spreads the frames over one interval too few; `dt` is what was computed with.
        time_steps = _numbers(file, f"{name}/dt")
    if len(buoyancy) not in (0, shape[0]):
        raise DataError(f"{url}: '{name}/buo_y' has {len(buoyancy)} values for {shape[0]} trajectories")
    return _SmokeFile(
        part=Part(url=url, count=shape[0]),
        frames=shape[1],
        grid=shape[2:],
        buoyancy=buoyancy,
        time_step=time_steps[0] if time_steps else None,
        spacing=tuple(step[0] for step in steps) if all(steps) else None,
    )


def _numbers(file: h5py.File, path: str) -> tuple[float, ...]:
    """The values of a dataset in one row; none where there is no such dataset."""
    found = file.get(path)
    if not isinstance(found, h5py.Dataset):
        return ()
    return tuple(float(value) for value in np.ravel(found[()]))


def _shortened(values: Sequence[float]) -> tuple[float, ...]:
    """One value where all are the same."""
    return tuple(values[:1]) if len(set(values)) == 1 else tuple(values)


def _open_sphere(component: PDEArena, split: Split, files: Sequence[str]) -> ArrayTrajectories:
    part = share(component, split, component.url, len(files), separate=True)
    with open_hdf5(files[0]) as file, explained(files[0]):
        found = {name: find_dataset(files[0], file, name) for name in _SPHERE}
        shape = found["pres"].shape
        if len(shape) != 3:
            raise DataError(f"{files[0]}: 'pres' has shape {shape}, expected (T, latitude, longitude)")
        metadata = Metadata(
            trajectories=part.count,
            frames=shape[0],
            grid=shape[1:],
            channels=tuple(_SPHERE),
            predicted=tuple(_SPHERE),
            boundary="sphere",
            time_step=_even_step(_numbers(file, "time")),
            source="PDEArena, shallow water on the sphere (Gupta and Brandstetter, 2022)",
            license="MIT",
            units=tuple(_unit(item.attrs.get("units", "")) for item in found.values()),
            split=part.words,
        )
    variables = [Variable(path=name, axes=axes) for name, axes in _SPHERE.items()]
    return ArrayTrajectories(
        metadata=metadata, parts=chosen([Part(url=url) for url in files], part), variables=variables
    )


def _unit(value: Any) -> str:
    """An attribute as text: netCDF writes bytes, h5py text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _even_step(values: Sequence[float]) -> float | None:
    """The distance of values that are evenly spaced."""
    steps = np.diff(values)
    return float(steps[0]) if len(steps) and np.allclose(steps, steps[0], rtol=1e-3) else None
