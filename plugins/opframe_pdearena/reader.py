"""Finding PDEArena's files and saying what is in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from attrs import frozen

from opframe.files.location import attribute, each, find_dataset, find_files, read_numbers
from opframe.readers.arrays import ArrayTrajectories, Part, Variable
from opframe.readers.splits import Share, chosen, share
from opframe.readers.stores import Stores
from opframe_registry import Boundary, DataError, Metadata, Split

if TYPE_CHECKING:
    from opframe_pdearena import PDEArena

_SMOKE = ("u", "vx", "vy")
_BUOYANCY = re.compile(r"_(\d+\.\d+)(?:_\d+)?\.h5$")  # in NavierStokes2D_train_42_0.50000_32.h5, after the seed
_SPHERE = {"u": "t1xy", "v": "t1xy", "div": "t1xy", "vor": "t1xy", "pres": "txy"}


def open_pdearena(component: PDEArena, split: Split) -> ArrayTrajectories:
    """The trajectories of one split. Raises DataError naming the folder, or the file and what it holds."""
    names = [component.test_split] if split == "test" else component.train_split.split("+")
    smoke = {name: find_files(component.url, f"NavierStokes2D_{name}_*.h5") for name in names}
    if all(smoke.values()):
        return _open_smoke(component, split, smoke)
    sphere = {name: find_files(component.url, f"{name}/**/*.nc") for name in names}
    if all(sphere.values()):
        return _open_sphere(component, split, [file for files in sphere.values() for file in files])
    name = next((name for name in names if not smoke[name] and not sphere[name]), names[0])
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

    count: int
    frames: int
    grid: tuple[int, int]
    buoyancy: tuple[float, ...]
    time_step: float | None
    spacing: tuple[float, ...] | None


def _open_smoke(component: PDEArena, split: Split, files: Mapping[str, Sequence[str]]) -> ArrayTrajectories:
    stores, groups = Stores(), {file: name for name, several in files.items() for file in several}
    described = each(lambda url: _ask_smoke(stores, url, groups[url]), groups)
    first, have = described[0], sum(item.count for item in described)
    part = share(component, split, component.url, have, separate=True)
    buoyancy = [value for item in described for value in item.buoyancy][part.first : part.first + part.count]
    metadata = Metadata(
        trajectories=part.count,
        frames=first.frames,
        grid=first.grid,
        channels=_SMOKE,
        predicted=_SMOKE,
        boundary="wall",  # of a box that nothing flows through
        time_step=first.time_step,
        source="PDEArena, Navier-Stokes with smoke and buoyancy (Gupta and Brandstetter, 2022)",
        license="MIT",
        units=("",) * len(_SMOKE),
        spacing=first.spacing,
        parameters={"buoyancy": _shortened(buoyancy)} if len(buoyancy) == part.count else {},
        split=f"{part.words}, published as '{' and '.join(files)}'",
        vectors=(("vx", "vy"),),
    )
    whole = [
        Part(url=url, count=item.count, group=name) for (url, name), item in zip(groups.items(), described, strict=True)
    ]
    variables = [Variable(path=f"{{group}}/{channel}", axes="ntxy") for channel in _SMOKE]
    return ArrayTrajectories(metadata=metadata, parts=chosen(whole, part), variables=variables, stores=stores)


def _ask_smoke(stores: Stores, url: str, name: str) -> _SmokeFile:
    return stores.ask(url, lambda title, file: _describe_smoke(title, file, name), f"pdearena {name}")


def _describe_smoke(url: str, file: h5py.File, name: str) -> _SmokeFile:
    shapes = {channel: find_dataset(url, file, f"{name}/{channel}").shape for channel in _SMOKE}
    shape = shapes["u"]
    if len(shape) != 4 or len(set(shapes.values())) != 1:
        found = ", ".join(f"{channel} {value}" for channel, value in shapes.items())
        raise DataError(f"{url}: expected {', '.join(_SMOKE)} of one shape (N, T, X, Y) in '{name}'; found {found}")
    buoyancy = _numbers(url, file, f"{name}/buo_y") or _named_buoyancy(url, shape[0])
    steps = [_numbers(url, file, f"{name}/{key}") for key in ("dx", "dy")]
    # Of the times in the files, `t` spreads the frames over one interval too few; `dt` is what was computed with.
    time_steps = _numbers(url, file, f"{name}/dt")
    if len(buoyancy) not in (0, shape[0]):
        raise DataError(f"{url}: '{name}/buo_y' has {len(buoyancy)} values for {shape[0]} trajectories")
    return _SmokeFile(
        count=shape[0],
        frames=shape[1],
        grid=shape[2:],
        buoyancy=buoyancy,
        time_step=time_steps[0] if time_steps else None,
        spacing=tuple(step[0] for step in steps) if all(steps) else None,
    )


def _named_buoyancy(url: str, count: int) -> tuple[float, ...]:
    """That of all trajectories of a file, which its name says."""
    named = _BUOYANCY.search(url)
    return (float(named[1]),) * count if named else ()


def _numbers(url: str, file: h5py.File, path: str) -> tuple[float, ...]:
    """The values of a dataset in one row; none where there is no such dataset."""
    found = file.get(path)
    if not isinstance(found, h5py.Dataset):
        return ()
    return tuple(np.ravel(read_numbers(url, found)).tolist())


def _shortened(values: Sequence[float]) -> tuple[float, ...]:
    """One value where all are the same."""
    return tuple(values[:1]) if len(set(values)) == 1 else tuple(values)


def _open_sphere(component: PDEArena, split: Split, files: Sequence[str]) -> ArrayTrajectories:
    part = share(component, split, component.url, len(files), separate=True)
    stores = Stores()
    metadata = stores.ask(files[0], lambda url, file: _describe_sphere(url, file, part), "pdearena")
    variables = [Variable(path=name, axes=axes) for name, axes in _SPHERE.items()]
    return ArrayTrajectories(
        metadata=metadata, parts=chosen([Part(url=url) for url in files], part), variables=variables, stores=stores
    )


def _describe_sphere(url: str, file: h5py.File, part: Share) -> Metadata:
    """What the first file says; that the others have its shape is seen when they are read."""
    found = {name: find_dataset(url, file, name) for name in _SPHERE}
    shape = found["pres"].shape
    if len(shape) != 3:
        raise DataError(f"{url}: 'pres' has shape {shape}, expected (T, latitude, longitude)")
    return Metadata(
        trajectories=part.count,
        frames=shape[0],
        grid=shape[1:],
        channels=tuple(_SPHERE),
        predicted=tuple(_SPHERE),
        boundary=(Boundary.POLE, Boundary.PERIODIC),  # latitude, longitude
        time_step=_even_step(_numbers(url, file, "time")),
        source="PDEArena, shallow water on the sphere (Gupta and Brandstetter, 2022)",
        license="MIT",
        units=tuple(_unit(attribute(url, item, "units", "")) for item in found.values()),
        split=part.words,
        vectors=(("v", "u"),),  # along latitude, along longitude
    )


def _unit(value: Any) -> str:
    """An attribute as text: netCDF writes bytes, h5py text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _even_step(values: Sequence[float]) -> float | None:
    """The distance of values that are evenly spaced."""
    steps = np.diff(values)
    return float(steps[0]) if len(steps) and np.allclose(steps, steps[0], rtol=1e-3) else None
