"""Made-up data to try the reader with: a tracer that drifts around an island in a periodic basin.

`python -m opframe_netcdf.basin FOLDER` writes FOLDER/train, FOLDER/validation and FOLDER/test.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray
from numpy.typing import NDArray

Array = NDArray[np.float64]

SIZE, FRAMES, TIME_STEP, SUBSTEPS = 16, (12, 20), 0.05, 10
COUNTS: Mapping[str, int] = {"train": 12, "validation": 4, "test": 4}


def island(size: int = SIZE) -> NDArray[np.bool_]:
    """Where there is land, (X, Y): a disc that is not in the middle."""
    x = (np.arange(size) + 0.5) / size
    return np.asarray((x[:, None] - 0.4) ** 2 + (x[None, :] - 0.55) ** 2 < 0.15**2)


def flow(land: NDArray[np.bool_], random: np.random.Generator) -> tuple[Array, Array]:
    """Velocities through the upper x and y sides of every cell, without divergence, and none through a coast.

    They are differences of a stream function at the cells' upper corners, which is zero at every corner of land.
    """
    size = len(land)
    x = np.arange(1, size + 1) / size
    phase = 2 * np.pi * random.random(2)
    stream = np.sin(2 * np.pi * x[:, None] + phase[0]) * np.sin(2 * np.pi * x[None, :] + phase[1]) / (2 * np.pi)
    touched = land | np.roll(land, -1, 0) | np.roll(land, -1, 1) | np.roll(land, (-1, -1), (0, 1))
    stream[touched] = 0.0
    return (stream - np.roll(stream, 1, 1)) * size, -(stream - np.roll(stream, 1, 0)) * size


def drifted(tracer: Array, velocity: tuple[Array, Array], sea: Array, diffusivity: float, time: float) -> Array:
    """The tracer a while later: upwind advection and diffusion in explicit steps, which keep its sum."""
    size = len(tracer)
    for _ in range(SUBSTEPS):
        change = np.zeros_like(tracer)
        for axis, speed in enumerate(velocity):
            beyond = np.roll(tracer, -1, axis)
            open_side = sea * np.roll(sea, -1, axis)
            flux = np.where(speed > 0, speed * tracer, speed * beyond) - diffusivity * (beyond - tracer) * size
            change -= (open_side * flux - np.roll(open_side * flux, 1, axis)) * size
        tracer = tracer + time / SUBSTEPS * change
    return tracer


def trajectory(seed: int, number: int) -> xarray.Dataset:
    """One trajectory as a file has it: its length, its flow and its diffusivity are its own."""
    random = np.random.default_rng([seed, number])
    land = island()
    sea = (~land).astype(float)
    frames = int(random.integers(FRAMES[0], FRAMES[1] + 1))
    diffusivity = float(10 ** random.uniform(-4, -2.5))
    velocity, x = flow(land, random), (np.arange(SIZE) + 0.5) / SIZE
    phase = 2 * np.pi * random.random(2)
    tracer = (2 + np.sin(2 * np.pi * x[:, None] + phase[0]) + np.cos(2 * np.pi * x[None, :] + phase[1])) * sea
    states = [tracer]
    while len(states) < frames:
        states.append(drifted(states[-1], velocity, sea, diffusivity, TIME_STEP))
    values = np.where(land, np.nan, np.stack(states)).astype(np.float32)
    data = xarray.Dataset(
        {"tracer": (("time", "x", "y"), values, {"units": "kg m-3"})},
        coords={"time": TIME_STEP * np.arange(frames), "x": x, "y": x},
    )
    # of every third trajectory nobody knows how diffusive it is
    return data if number % 3 == 2 else data.assign_attrs(diffusivity=diffusivity)


def write_basin(folder: Path, counts: Mapping[str, int] = COUNTS) -> Path:
    """Write so many trajectories of each split, one a file."""
    for seed, (split, count) in enumerate(counts.items()):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            fill = {"tracer": {"_FillValue": np.float32(-9999.0)}}
            path = folder / split / f"{number:03d}.nc"
            trajectory(seed, number).to_netcdf(path, engine="h5netcdf", encoding=fill)
    return folder


if __name__ == "__main__":
    write_basin(Path(sys.argv[1]))
