"""Bringing frames from their own grid to that of the model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from opframe.config.settings import Resize
from opframe_registry import ConfigError

Grid = tuple[int, ...]

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resize(frames: Tensor, grid: Grid, mode: Resize = "bilinear") -> Tensor:
    """(T, C, *native) to (T, C, *grid), in one of the ways of `Resize`. `check_resize` says whether it can be done."""
    if tuple(frames.shape[2:]) == grid:
        return frames
    return _MODES[mode](frames, grid)


def resize_known(frames: Tensor, known: Tensor, grid: Grid, mode: Resize = "bilinear") -> tuple[Tensor, Tensor]:
    """`resize` for frames of which some values are not known; both tensors are (T, C, *native), the second of bools.

    A value is known where all values that it is made of are; the others are made with 0 in their place.
    """
    if tuple(frames.shape[2:]) == grid:
        return frames, known
    # no weight of a resizing but the Fourier one is negative, so that a share of what is unknown cannot cancel
    unknown = resize((~known).to(frames.dtype), grid, mode)
    return resize(frames.masked_fill(~known, 0.0), grid, mode), unknown == 0


def _linear(frames: Tensor, grid: Grid) -> Tensor:
    """Linear interpolation with half-pixel centres, as DPOT resizes."""
    if len(grid) > 1 and _doubles(tuple(frames.shape[2:]), grid):
        return _doubled(frames, grid)
    return interpolate(frames, size=grid, mode=_LINEAR[len(grid)], align_corners=False)


def _doubles(native: Grid, grid: Grid) -> bool:
    """Whether `_doubled` gives torch's numbers to the last bit, which on smaller grids are rounded in another way."""
    return grid == tuple(2 * own for own in native) and sum(grid) > 128 and grid[-1] % 16 == 0


def _doubled(frames: Tensor, grid: Grid) -> Tensor:
    """The same in less than half the time, one axis after another: torch repeats the sums of a row for every new row.

    What lies behind an axis is given to torch as channels that are last in memory, which it computes as vectors.
    """
    result = interpolate(frames.reshape(1, -1, frames.shape[-1]), size=grid[-1], mode="linear")
    result = result.reshape(*frames.shape[:-1], grid[-1])
    for axis in range(result.ndim - 2, 1, -1):
        before, own, behind = result.shape[:axis], result.shape[axis], result.shape[axis + 1 :]
        rows = result.reshape(-1, own, 1, behind.numel()).permute(0, 3, 1, 2)
        rows = interpolate(rows, size=(grid[axis - 2], 1), mode="bilinear")
        result = rows.permute(0, 2, 3, 1).reshape(*before, grid[axis - 2], *behind)
    return result


def _fourier(frames: Tensor, grid: Grid) -> Tensor:
    """The trigonometric interpolant of periodic data, without the waves that the new grid cannot carry.

    Point i of N lies at i/N of the period. Computed in float64.
    """
    result = frames.double()
    for axis, size in enumerate(grid, start=2):
        if size != result.shape[axis]:
            result = _fourier_axis(result.movedim(axis, -1), size).movedim(-1, axis)
    return result.to(frames.dtype).contiguous()


def _fourier_axis(values: Tensor, size: int) -> Tensor:
    """(..., N) to (..., size).

    On an even number of points the shortest wave and its mirror image are one coefficient: it is shared between the
    two when points are added, and the two are added up when points are taken away.
    """
    own = values.shape[-1]
    shorter = min(own, size)
    spectrum = torch.fft.rfft(values)[..., : shorter // 2 + 1] * (size / own)
    if shorter % 2 == 0:
        spectrum[..., -1] *= 0.5 if size > own else 2.0
    result: Tensor = torch.fft.irfft(spectrum, n=size)
    return result


def _average(frames: Tensor, grid: Grid) -> Tensor:
    """The mean over the cells that become one."""
    for axis, size in enumerate(grid, start=2):
        shape = frames.shape
        frames = frames.reshape(*shape[:axis], size, -1, *shape[axis + 1 :]).mean(axis + 1)
    return frames


def _crop(frames: Tensor, grid: Grid) -> Tensor:
    """The central part; of an odd number of points too many, the larger half is cut off at the end."""
    for axis, size in enumerate(grid, start=2):
        frames = frames.narrow(axis, (frames.shape[axis] - size) // 2, size)
    return frames


_MODES: dict[Resize, Callable[[Tensor, Grid], Tensor]] = {
    "bilinear": _linear,
    "fourier": _fourier,
    "average": _average,
    "crop": _crop,
}


def check_resize(title: str, native: Grid, grid: Grid, mode: Resize, missing: float | None = None) -> None:
    """Raises ConfigError where a dataset's grid cannot become another in this way, naming both.

    `missing` is the value that stands where the dataset has none.
    """
    pairs = list(zip(native, grid, strict=True))
    what = f"data.resize = '{mode}': {title} is given on the grid {list(native)}, and data.grid = {list(grid)}"
    if mode == "average" and any(own % size for own, size in pairs):
        raise ConfigError(f"{what}; averaging takes a whole number of its points for each point of the model")
    if mode == "crop" and any(own < size for own, size in pairs):
        raise ConfigError(f"{what}; a part of it cannot have more points")
    if mode == "fourier" and native != grid and missing is not None:
        raise ConfigError(
            f"{what}; it misses values ({missing:g} stands for them), and every wave is made of all points; "
            "choose 'bilinear', 'average', 'crop' or 'native'"
        )
    if mode == "native" and native != grid:
        raise ConfigError(f"{what}; it stays as it is; choose how to resize it, such as 'bilinear' or 'average'")
