"""The rows and columns that CFDBench adds around its fields for inflow and walls, and the mask.

A frame's axes are Y X: rows from the bottom upwards, columns from the inlet on. Facts from the published loaders
(github.com/luo-yining/CFDBench, src/dataset), with two differences in the mask. They look for the cylinder around
(0.5, 0.5), but it lies at the origin of x_min … x_max; and by a slice in the wrong axis they leave the dam out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

Frames = NDArray[np.float32]

DAM_AT = 0.5
"""Where the dam begins, in metres from the inlet."""

NEEDED: Mapping[str, tuple[str, ...]] = {
    "cavity": (),
    "tube": ("vel_in",),
    "dam": ("velocity", "barrier_height", "barrier_width", "dx", "dy"),
    "cylinder": ("vel_in", "radius", "x_min", "x_max", "y_min", "y_max"),
}
"""What case.json has to say for the boundary of each problem."""


SIDES: Mapping[str, tuple[str, str]] = {
    "cavity": ("wall to dirichlet", "wall"),  # the lid is on top, and moves
    "tube": ("wall", "inflow to open"),
    "dam": ("wall", "inflow to open"),
    "cylinder": ("wall", "inflow to open"),
}
"""The lower and upper side of Y and X, in the words of `Metadata`, as the published loaders pad the fields."""


@frozen(kw_only=True)
class Boundary:
    """`inflow` (Y,) is u in the column added at the inlet, `fluid` (Y, X) is 1 where there is fluid."""

    inflow: Frames
    fluid: Frames


def padded_grid(problem: str, grid: tuple[int, int]) -> tuple[int, int]:
    """The grid with what is added: a column at the inlet and a wall above and below, but nothing around a cavity."""
    return grid if problem == "cavity" else (grid[0] + 2, grid[1] + 1)


def with_boundary(problem: str, u: Frames, v: Frames, parameters: Mapping[str, float]) -> Frames:
    """u and v (T, Y, X) with the mask and what surrounds them, (T, 3, *padded grid)."""
    grid = (u.shape[1], u.shape[2])
    boundary = _boundary(problem, grid, parameters)
    frames = np.zeros((len(u), 3, *padded_grid(problem, grid)), np.float32)
    inside = frames if problem == "cavity" else frames[:, :, 1:-1, 1:]
    inside[:, 0], inside[:, 1], inside[:, 2] = u, v, boundary.fluid
    if problem != "cavity":
        frames[:, 0, 1:-1, 0] = boundary.inflow
    return frames


def obstacle(problem: str, grid: tuple[int, int], parameters: Mapping[str, float]) -> NDArray[np.bool_]:
    """Where there is no fluid but a dam or a cylinder, (*padded grid); what is added around the field is none."""
    inside = _boundary(problem, grid, parameters).fluid == 0
    return inside if problem == "cavity" else np.pad(inside, ((1, 1), (1, 0)))


def _boundary(problem: str, grid: tuple[int, int], parameters: Mapping[str, float]) -> Boundary:
    fluid = np.ones(grid, np.float32)
    inflow = np.zeros(grid[0], np.float32)
    if problem == "dam":
        top = int(parameters["barrier_height"] / parameters["dy"])
        left = int(DAM_AT / parameters["dx"])
        right = int((DAM_AT + parameters["barrier_width"]) / parameters["dx"])
        inflow[:top] = parameters["velocity"]
        fluid[:top, left:right] = 0.0
    elif problem != "cavity":
        inflow[:] = parameters["vel_in"]
    if problem == "cylinder":
        fluid[_in_cylinder(grid, parameters)] = 0.0
    return Boundary(inflow=inflow, fluid=fluid)


def _in_cylinder(grid: tuple[int, int], parameters: Mapping[str, float]) -> NDArray[np.bool_]:
    """Which cells have their centre in the cylinder, (Y, X)."""
    y, x = (
        parameters[f"{axis}_min"]
        + (np.arange(size) + 0.5) * (parameters[f"{axis}_max"] - parameters[f"{axis}_min"]) / size
        for axis, size in zip("yx", grid, strict=True)
    )
    inside: NDArray[np.bool_] = y[:, None] ** 2 + x**2 <= parameters["radius"] ** 2
    return inside
