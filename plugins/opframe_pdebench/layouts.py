"""What one of PDEBench's files holds: its arrays, what their axes mean, and what is known of the equation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from attrs import field, frozen

from opframe.files.location import dataset_names, find_dataset, is_local, require_real
from opframe.readers.arrays import SPACE, Variable
from opframe_pdebench.equations import (
    GROUPED,
    Boundaries,
    GroupedEquation,
    OneDimensional,
    attribute_parameters,
    compressible_boundary,
    compressible_conserved,
    config_numbers,
    one_dimensional,
)
from opframe_pdebench.recognition import EXPECTED, kind_of
from opframe_registry import DataError

_LOOKED_AT = 13  # arrays: no layout has more in its root, and of groups, which lie far apart, a few tell enough
_COMPRESSIBLE_NAMES = {"Vx": "velocity_x", "Vy": "velocity_y", "Vz": "velocity_z"}
# The order in which DPOT and MoE-POT were trained.
_COMPRESSIBLE = {
    1: ("Vx", "density", "pressure"),
    2: ("Vx", "Vy", "density", "pressure"),
    3: ("Vx", "Vy", "Vz", "pressure", "density"),
}


@frozen(kw_only=True)
class Quantity:
    """An array and the names of the channels it gives."""

    variable: Variable
    names: tuple[str, ...]
    input_only: bool = False


@frozen(kw_only=True)
class Layout:
    """What a file holds: trajectories `first` to `first + count`, in the terms of `Metadata`.

    `steady`: one frame, the solution of a problem that the input-only quantities pose. A parameter has one value, or
    one for each trajectory.
    """

    equation: str
    count: int
    frames: int
    grid: tuple[int, ...]
    quantities: tuple[Quantity, ...]
    first: int = 0
    steady: bool = False
    boundary: Boundaries = "unknown"
    time_step: float | None = None
    spacing: tuple[float, ...] | None = None
    parameters: Mapping[str, tuple[float, ...]] = field(factory=dict)
    conserved: Mapping[str, tuple[str, ...]] = field(factory=dict)


def describe(url: str, file: h5py.File) -> Layout:
    """Look into a file. Raises DataError saying what was found and what was expected."""
    names = dataset_names(file, _LOOKED_AT)
    match kind_of(names):
        case "compressible":
            return _compressible(url, file)
        case "incompressible":
            return _incompressible(url, file)
        case "tensor":
            return _tensor(url, file)
        case "groups":
            return _groups(url, file)
        case _:
            found = ", ".join(names[: _LOOKED_AT - 1]) + (", …" if len(names) == _LOOKED_AT else "")
            raise DataError(f"{url}: has none of PDEBench's layouts; found: {found or 'nothing'}; {EXPECTED}")


def _compressible(url: str, file: h5py.File) -> Layout:
    shape = find_dataset(url, file, "Vx").shape
    if not 3 <= len(shape) <= 5:
        raise DataError(f"{url}: 'Vx' has shape {shape}; expected (N, T, X), (N, T, X, Y) or (N, T, X, Y, Z)")
    arrays = _COMPRESSIBLE[len(shape) - 2]
    for name in arrays:
        if name not in file:
            raise DataError(
                f"{url}: has no '{name}'; compressible flow in {len(shape) - 2} dimensions has {', '.join(arrays)}"
            )
        found = find_dataset(url, file, name).shape
        if found != shape:
            raise DataError(f"{url}: '{name}' has shape {found}, expected {shape} as 'Vx'")
    axes, boundary = "nt" + SPACE[: len(shape) - 2], compressible_boundary(url)
    velocities = [_COMPRESSIBLE_NAMES[name] for name in arrays if name in _COMPRESSIBLE_NAMES]
    return Layout(
        equation="compressible Navier–Stokes",
        count=shape[0],
        frames=shape[1],
        grid=shape[2:],
        quantities=tuple(
            Quantity(variable=Variable(path=name, axes=axes), names=(_COMPRESSIBLE_NAMES.get(name, name),))
            for name in arrays
        ),
        boundary=boundary,
        conserved=compressible_conserved(boundary, velocities),
        time_step=_step(url, file, "t-coordinate", shape[1]),
        spacing=_spacing(url, file, "{}-coordinate", shape[2:]),
        parameters=attribute_parameters(url, file),
    )


def _tensor(url: str, file: h5py.File) -> Layout:
    shape, steady = find_dataset(url, file, "tensor").shape, "nu" in file
    coefficients = find_dataset(url, file, "nu").shape if steady else ()
    if steady and (len(shape) != 4 or shape[1] != 1 or coefficients != (shape[0], *shape[2:])):
        raise DataError(
            f"{url}: 'tensor' and 'nu' have shapes {shape} and {coefficients}; expected (N, 1, X, Y) and (N, X, Y)"
        )
    if not steady and len(shape) != 3:
        raise DataError(f"{url}: 'tensor' has shape {shape}; expected (N, T, X), or (N, 1, X, Y) with 'nu' (N, X, Y)")
    space = SPACE[: len(shape) - 2]
    solution = Quantity(variable=Variable(path="tensor", axes="nt" + space), names=("u",))
    coefficient = Quantity(variable=Variable(path="nu", axes="n" + space), names=("nu",), input_only=True)
    parameters = attribute_parameters(url, file)
    known = OneDimensional(title="Darcy flow", boundary="dirichlet") if steady else one_dimensional(parameters)
    return Layout(
        equation=known.title,
        count=shape[0],
        frames=shape[1],
        grid=shape[2:],
        quantities=(coefficient, solution) if steady else (solution,),
        steady=steady,
        boundary=known.boundary,
        conserved=known.conserved,
        time_step=None if steady else _step(url, file, "t-coordinate", shape[1]),
        spacing=_spacing(url, file, "{}-coordinate", shape[2:]),
        parameters=parameters,
    )


def _incompressible(url: str, file: h5py.File) -> Layout:
    velocity, particles, force = (find_dataset(url, file, name).shape for name in ("velocity", "particles", "force"))
    components = len(velocity) - 3
    expected = (*velocity[:-1], 1), (*velocity[:1], *velocity[2:])
    if components not in (2, 3) or velocity[-1] != components or (particles, force) != expected:
        raise DataError(
            f"{url}: 'velocity', 'particles' and 'force' have shapes {velocity}, {particles} and {force}; "
            "expected (N, T, X, Y, 2), (N, T, X, Y, 1) and (N, X, Y, 2)"
        )
    space = SPACE[:components]
    moving, constant = f"nt{space}c", f"n{space}c"
    viscosity = config_numbers(url, file).get("NU")
    return Layout(
        equation="incompressible Navier–Stokes",
        count=velocity[0],
        frames=velocity[1],
        grid=velocity[2:-1],
        quantities=(
            _vector("velocity", moving, [f"velocity_{axis}" for axis in space]),
            _vector("particles", moving, ["particles"]),
            _vector("force", constant, [f"force_{axis}" for axis in space], input_only=True),
        ),
        boundary="no slip",
        time_step=_step(url, file, "t", velocity[1]),
        parameters={} if viscosity is None else {"viscosity": (viscosity,)},
    )


def _groups(url: str, file: h5py.File) -> Layout:
    numbers = sorted(int(name) for name in file if name.isdigit())
    missing = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))
    if missing:
        raise DataError(
            f"{url}: group {missing[0]:04d} is missing; expected all from {numbers[0]:04d} to {numbers[-1]:04d}"
        )
    path = f"{numbers[0]:04d}/data"
    shape = find_dataset(url, file, path).shape
    group = file[path].parent
    if not 3 <= len(shape) <= 5:
        raise DataError(f"{url}: '{path}' has shape {shape}; expected (T, X, C) or (T, X, Y, C)")
    equation = _equation(url, group, shape)
    names = equation.channels or tuple(f"c{index}" for index in range(shape[-1]))
    grid = shape[1:-1]
    return Layout(
        equation=equation.title,
        count=len(numbers),
        first=numbers[0],
        frames=shape[0],
        grid=grid,
        quantities=(_vector("{n:04d}/data", f"t{SPACE[: len(grid)]}c", names),),
        boundary=equation.boundary,
        time_step=_step(url, group, "grid/t", shape[0]),
        spacing=_spacing(url, group, "grid/{}", grid),
        parameters=_group_parameters(url, equation, file, numbers),
    )


def _vector(path: str, axes: str, names: Sequence[str], input_only: bool = False) -> Quantity:
    variable = Variable(path=path, axes=axes, channels=len(names))
    return Quantity(variable=variable, names=tuple(names), input_only=input_only)


def _equation(url: str, group: h5py.Group, shape: tuple[int, ...]) -> GroupedEquation:
    """What the groups of a file are solutions of, by what is written with them or by the file's name."""
    numbers = config_numbers(url, group)
    for equation in GROUPED:
        if equation.mark in url.rsplit("/", 1)[-1] or set(equation.common) <= numbers.keys():
            if (len(shape) - 2, shape[-1]) != (equation.dimensions, len(equation.channels)):
                raise DataError(
                    f"{url}: '{group.name[1:]}/data' has shape {shape}, but {equation.title} has "
                    f"{equation.dimensions} space axes and the channels {', '.join(equation.channels)}"
                )
            return equation
    return GroupedEquation(title="unknown equation", mark="", dimensions=len(shape) - 2)


def _group_parameters(
    url: str, equation: GroupedEquation, file: h5py.File, numbers: Sequence[int]
) -> dict[str, tuple[float, ...]]:
    """Numbers that all groups share, from the first; those of each, which are many small reads, from near files."""
    first = config_numbers(url, file[f"{numbers[0]:04d}"])
    found: dict[str, tuple[float, ...]] = {name: (first[name],) for name in equation.common if name in first}
    if is_local(url) and equation.own and set(equation.own) <= first.keys():
        each = [config_numbers(url, file[f"{number:04d}"]) for number in numbers]
        found |= {name: tuple(config.get(name, np.nan) for config in each) for name in equation.own}
    return found


def _spacing(url: str, file: h5py.Group, pattern: str, grid: tuple[int, ...]) -> tuple[float, ...] | None:
    steps = [_step(url, file, pattern.format(axis), size) for axis, size in zip(SPACE, grid, strict=False)]
    known = tuple(step for step in steps if step is not None)
    return known if len(known) == len(grid) else None


def _step(url: str, file: h5py.Group, path: str, count: int) -> float | None:
    """Distance of the `count` values of a coordinate; None if they are not there or not equidistant.

    PDEBench's times may have an entry too many. They may be stored for each trajectory; then the first ones count.
    """
    stored: Any = file.get(path)
    if not isinstance(stored, h5py.Dataset) or count < 2 or stored.ndim == 0 or stored.shape[-1] < count:
        return None
    require_real(url, stored.name[1:], stored.dtype)
    values = np.asarray(stored[(*(0,) * (stored.ndim - 1), slice(count))], np.float64)
    step = (values[-1] - values[0]) / (count - 1)
    # Single precision has six digits to give.
    return float(f"{step:.6g}") if step > 0 and np.allclose(np.diff(values), step, rtol=1e-2) else None
