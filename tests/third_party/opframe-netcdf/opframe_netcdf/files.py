"""Trajectories in NetCDF files, of which only the frames asked for are read."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray
from attrs import frozen
from numpy.typing import NDArray

from opframe_registry import DataError, Metadata, Split

if TYPE_CHECKING:
    from opframe_netcdf import NetCDF

OPEN_FILES = 16
"""Files that one copy of the trajectories keeps open."""


@frozen(kw_only=True)
class Header:
    """What is known of a file without its frames."""

    frames: int
    grid: tuple[int, ...]
    channels: tuple[str, ...]
    units: tuple[str, ...]
    time_step: float | None
    spacing: tuple[float | None, ...]
    masked: bool
    parameters: tuple[float, ...]


class NetCDFTrajectories:
    """One trajectory a file. Files are opened when they are read, and the one opened first is closed for another."""

    def __init__(self, files: Sequence[Path], metadata: Metadata) -> None:
        self.metadata = metadata
        self._files = tuple(files)
        self._open: dict[int, xarray.Dataset] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def read(self, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
        """Frames [start, stop) of one file, (T, C, *grid), NaN where there is no value. Raises DataError."""
        if not 0 <= trajectory < len(self._files):
            raise DataError(f"there is no trajectory {trajectory}; they are numbered 0 to {len(self._files) - 1}")
        path, length = self._files[trajectory], self.metadata.length(trajectory)
        if not 0 <= start <= stop <= length:
            raise DataError(f"{path}: frames {start} to {stop} were asked for, but there are {length}")
        try:
            data = self._opened(trajectory)
            frames = [data[name][start:stop].to_numpy() for name in self.metadata.channels]
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from error
        return np.stack(frames, axis=1).astype(np.float32, copy=False)

    def _opened(self, trajectory: int) -> xarray.Dataset:
        if trajectory not in self._open:
            if len(self._open) == OPEN_FILES:
                self._open.pop(next(iter(self._open))).close()
            self._open[trajectory] = opened(self._files[trajectory])
        return self._open[trajectory]


def opened(path: Path) -> xarray.Dataset:
    """A file whose values are read when they are asked for. Raises DataError."""
    try:
        return xarray.open_dataset(path, engine="h5netcdf", decode_times=False, cache=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is no NetCDF file that can be read: {error}") from error


def open_files(settings: NetCDF, split: Split) -> NetCDFTrajectories:
    """The trajectories of a split; only headers are read. Raises DataError where files are missing or do not agree."""
    folder, wanted = settings.folder(split), settings.wanted(split)
    files = sorted(folder.glob("*.nc"))
    if not files:
        raise DataError(f"{settings.title}: there is no NetCDF file (*.nc) in {folder}")
    if wanted is not None and wanted > len(files):
        raise DataError(f"{settings.title}: {split} = {wanted}, but {folder} holds {len(files)} files")
    files = files[:wanted]
    headers = [read_header(path, settings) for path in files]
    for path, header in zip(files, headers, strict=True):
        for what in ("grid", "channels"):
            here, first = getattr(header, what), getattr(headers[0], what)
            if here != first:
                raise DataError(f"{path}: its {what} {here} differs from {first}, that of {files[0]}")
    return NetCDFTrajectories(files, _metadata(headers, settings))


def read_header(path: Path, settings: NetCDF) -> Header:
    """What a file says of its trajectory. Raises DataError."""
    with opened(path) as data:
        names = settings.variables or tuple(str(name) for name, item in data.data_vars.items() if item.ndim > 1)
        for name in names:
            if name not in data.data_vars or data[name].ndim < 2:
                raise DataError(f"{path}: has no variable '{name}' of time and space; it has {list(data.data_vars)}")
        if not names:
            raise DataError(f"{path}: has no variable of time and space")
        shapes = {name: data[name].shape for name in names}
        if len(set(shapes.values())) > 1:
            raise DataError(f"{path}: the variables differ in shape: {shapes}")
        time, *axes = data[names[0]].dims
        return Header(
            frames=data.sizes[time],
            grid=tuple(data.sizes[axis] for axis in axes),
            channels=names,
            units=tuple(str(data[name].attrs.get("units", "")) for name in names),
            time_step=_step(data, str(time)),
            spacing=tuple(_step(data, str(axis)) for axis in axes),
            masked=any("_FillValue" in data[name].encoding for name in names),
            parameters=tuple(_number(path, data, name) for name in settings.parameters),
        )


def _step(data: xarray.Dataset, dimension: str) -> float | None:
    """The distance of a dimension's coordinates; None where they are missing or not uniform."""
    if dimension not in data.coords or data.sizes[dimension] < 2:
        return None
    steps = np.diff(data[dimension].to_numpy().astype(float))
    return float(steps[0]) if np.allclose(steps, steps[0], rtol=1e-4) else None


def _number(path: Path, data: xarray.Dataset, attribute: str) -> float:
    value = data.attrs.get(attribute, nan)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DataError(f"{path}: its attribute '{attribute}' is {value!r}, which is no number") from None


def _metadata(headers: Sequence[Header], settings: NetCDF) -> Metadata:
    first = headers[0]
    lengths = tuple(header.frames for header in headers)
    spacing = tuple(step for step in first.spacing if step is not None)
    try:
        return Metadata(
            trajectories=len(headers),
            frames=max(lengths),
            lengths=lengths if len(set(lengths)) > 1 else (),
            grid=first.grid,
            channels=first.channels,
            predicted=first.channels,
            units=first.units if any(first.units) else (),
            boundary=settings.boundary,
            time_step=first.time_step,
            spacing=spacing if len(spacing) == len(first.grid) else None,
            parameters={
                name: tuple(header.parameters[index] for header in headers)
                for index, name in enumerate(settings.parameters)
            },
            missing=nan if any(header.masked for header in headers) else None,
            source=str(settings.url),
        )
    except ValueError as error:
        raise DataError(f"{settings.title}: {error}") from error
