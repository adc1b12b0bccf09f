"""What one file of The Well says of itself (github.com/PolymathicAI/the_well, docs/data_format.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import h5py
import numpy as np
from attrs import frozen

from opframe.files.location import attribute, dataset_names, find_dataset, read_numbers
from opframe.readers.arrays import SPACE, Variable
from opframe_registry import Boundary, DataError

_ORDERS = {"t0_fields": 0, "t1_fields": 1, "t2_fields": 2}
_UNEVEN = 1e-3  # coordinates are float32, so that even steps differ in the fourth digit


@frozen(kw_only=True)
class FieldArray:
    """A field: its array, its channels, whether it is to be predicted, and whether it is a vector."""

    variable: Variable
    channels: tuple[str, ...]
    predicted: bool
    vector: bool


@frozen(kw_only=True)
class Description:
    """What a file holds. `parameters` have one value, or one for each trajectory."""

    name: str
    trajectories: int
    frames: int
    grid: tuple[int, ...]
    fields: tuple[FieldArray, ...]
    boundary: tuple[tuple[Boundary, Boundary], ...]
    time_step: float | None
    spacing: tuple[float, ...] | None
    parameters: Mapping[str, tuple[float, ...]]


def describe(url: str, file: h5py.File) -> Description:
    """Read what a file says of itself. Raises DataError naming what it lacks."""
    dimensions = file.get("dimensions")
    if not isinstance(dimensions, h5py.Group) or not any(isinstance(file.get(key), h5py.Group) for key in _ORDERS):
        found = ", ".join(dataset_names(file, limit=8)) or "nothing"
        raise DataError(
            f"{url}: not a file of The Well; expected the groups dimensions and t0_fields, t1_fields or t2_fields, "
            f"found: {found}"
        )
    axes = _words(attribute(url, dimensions, "spatial_dims"))
    fields = tuple(_fields(url, file, axes))
    if not fields:
        raise DataError(f"{url}: has no fields; t0_fields, t1_fields and t2_fields name none")
    lengths = _lengths(url, file, fields, axes)
    return Description(
        name=_text(attribute(url, file, "dataset_name", "")),
        trajectories=lengths["n"],
        frames=lengths["t"],
        grid=tuple(lengths[letter] for letter in SPACE[: len(axes)]),
        # What is predicted comes first, so that datasets share the first slots of the channel axis.
        fields=tuple(sorted(fields, key=lambda item: not item.predicted)),
        boundary=tuple(_sides(url, file, axis) for axis in axes),
        time_step=_even_step(url, dimensions.get("time")),
        spacing=_spacing(url, dimensions, axes),
        parameters=_parameters(url, file, lengths["n"]),
    )


def _fields(url: str, file: h5py.File, axes: tuple[str, ...]) -> Iterator[FieldArray]:
    for group, order in _ORDERS.items():
        if not isinstance(file.get(group), h5py.Group):
            continue
        for name in _words(attribute(url, file[group], "field_names")):
            path = f"{group}/{name}"
            if not isinstance(file.get(path), h5py.Dataset):
                raise DataError(f"{url}: '{group}' names the field '{name}', but there is no '{path}'")
            yield _field(url, find_dataset(url, file, path), path, name, order, axes)


def _field(url: str, found: h5py.Dataset, path: str, name: str, order: int, axes: tuple[str, ...]) -> FieldArray:
    in_sample, in_time = (bool(attribute(url, found, key, True)) for key in ("sample_varying", "time_varying"))
    varying = np.ravel(attribute(url, found, "dim_varying", [True] * len(axes)))
    if len(varying) != len(axes):
        raise DataError(f"{url}: '{path}' says in dim_varying of {len(varying)} axes, but space has {len(axes)}")
    space = "".join(letter for letter, varies in zip(SPACE, varying, strict=False) if varies)
    leading = "n" * in_sample + "t" * in_time + space
    components = found.shape[len(leading) :]
    flat = order == 2 and components == (len(axes) ** 2,)
    if not flat and components != (len(axes),) * order:
        expected = " ".join([*leading, *"D" * order])
        raise DataError(f"{url}: '{path}' has shape {found.shape}, expected the axes {expected} with D = {len(axes)}")
    channels = tuple(
        "_".join([name, "".join(letters)] if letters else [name]) for letters in product(axes, repeat=order)
    )
    return FieldArray(
        variable=Variable(path=path, axes=leading + ("c" if flat else "c" * order), channels=len(channels)),
        channels=channels,
        predicted=in_sample and in_time,
        vector=order == 1,
    )


def _lengths(url: str, file: h5py.File, fields: tuple[FieldArray, ...], axes: tuple[str, ...]) -> dict[str, int]:
    """The length of each axis, which is to be the same in all fields that have it."""
    lengths: dict[str, int] = {}
    for item in fields:
        shape = file[item.variable.path].shape
        for letter, length in zip(item.variable.axes.rstrip("c"), shape, strict=False):
            if lengths.setdefault(letter, length) != length:
                raise DataError(
                    f"{url}: '{item.variable.path}' has shape {shape}, but other fields have {lengths[letter]} "
                    f"along the axis {letter}; axes are {item.variable.axes}"
                )
    if missing := [letter for letter in ("n", "t", *SPACE[: len(axes)]) if letter not in lengths]:
        raise DataError(f"{url}: no field varies along {', '.join(missing)}; axes are n, t and those of space")
    return lengths


def _sides(url: str, file: h5py.File, axis: str) -> tuple[Boundary, Boundary]:
    """The boundaries at the lower and the upper side of an axis; unknown where the file names none, or several."""
    found: tuple[set[Boundary], set[Boundary]] = (set(), set())
    for item in (file.get("boundary_conditions") or {}).values():
        associated = _words(attribute(url, item, "associated_dims"))
        if axis not in associated:
            continue
        kind = _kind(_text(attribute(url, item, "bc_type", "unknown")))
        for kinds, there in zip(found, _ends(url, item, len(associated)), strict=True):
            kinds.update({kind} if there else ())
    lower, upper = (kinds.pop() if len(kinds) == 1 else Boundary.UNKNOWN for kinds in found)
    return lower, upper


def _kind(word: str) -> Boundary:
    """What a file calls a boundary; not all that publishers may come to write is known."""
    try:
        return Boundary.of(word)
    except ValueError:
        return Boundary.UNKNOWN


def _ends(url: str, item: h5py.Group, axes: int) -> tuple[bool, bool]:
    """Whether a boundary is at the lower and the upper end of its axis, which its mask says if it has one axis."""
    mask = item.get("mask")
    if axes != 1 or not isinstance(mask, h5py.Dataset) or mask.ndim != 1 or not len(mask):
        return True, True
    return bool(mask[0]), bool(mask[-1])


def _spacing(url: str, dimensions: h5py.Group, axes: tuple[str, ...]) -> tuple[float, ...] | None:
    steps = [_even_step(url, dimensions.get(axis)) for axis in axes]
    return tuple(step for step in steps if step is not None) if None not in steps else None


def _even_step(url: str, coordinates: h5py.Dataset | None) -> float | None:
    """The distance of coordinates that are evenly spaced, and the same in every trajectory."""
    if not isinstance(coordinates, h5py.Dataset) or not coordinates.shape or coordinates.shape[-1] < 2:
        return None
    steps = np.diff(read_numbers(url, coordinates), axis=-1)
    mean = steps.mean()
    return float(mean) if np.all(np.abs(steps - mean) <= _UNEVEN * abs(mean)) else None


def _parameters(url: str, file: h5py.File, trajectories: int) -> dict[str, tuple[float, ...]]:
    """The numbers among the simulation parameters, and the scalars that do not change in time."""
    found: dict[str, tuple[float, ...]] = {}
    for name in _words(attribute(url, file, "simulation_parameters")):
        value = np.ravel(attribute(url, file, name, ()))
        if value.size == 1 and np.issubdtype(value.dtype, np.number):
            found[name] = (float(value[0]),)
    scalars = file.get("scalars")
    for name in _words(attribute(url, scalars, "field_names")) if isinstance(scalars, h5py.Group) else ():
        item = scalars.get(name)
        if isinstance(item, h5py.Dataset) and not attribute(url, item, "time_varying", False):
            values = tuple(np.ravel(read_numbers(url, item)).tolist())
            if len(values) in (1, trajectories):
                found[name] = values
    return found


def _words(value: Any) -> tuple[str, ...]:
    """A list of names in an attribute; an empty one is stored as numbers."""
    return tuple(_text(word) for word in np.ravel([] if value is None else value))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
