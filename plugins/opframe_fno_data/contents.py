"""What a MATLAB file holds, found without reading its fields."""

from __future__ import annotations

import zlib

import fsspec
import h5py
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from opframe.data.storage import explained, is_hdf5, open_hdf5
from opframe_registry import DataError


@frozen(kw_only=True, eq=False)
class Contents:
    """Shapes of the arrays in MATLAB's order of axes, and the times. `backwards`: the file has the axes reversed."""

    shapes: dict[str, tuple[int, ...]]
    times: NDArray[np.float64]
    backwards: bool


def look_into(url: str) -> Contents:
    """Raises DataError if the file is damaged, or of the old format and scipy is not installed."""
    return _of_hdf5(url) if is_hdf5(url) else _of_old_format(url)


def _of_hdf5(url: str) -> Contents:
    with open_hdf5(url) as file, explained(url):
        shapes = {name: item.shape[::-1] for name, item in file.items() if isinstance(item, h5py.Dataset)}
        times = np.ravel(file["t"][...] if "t" in shapes else ())
    return Contents(shapes=shapes, times=times.astype(np.float64), backwards=True)


def _of_old_format(url: str) -> Contents:
    try:
        from scipy.io import loadmat, whosmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise DataError(
            f'{url}: MATLAB files older than 7.3 take scipy, which is not installed; pip install "opframe[mat]"'
        ) from error
    try:
        with explained(url), fsspec.open(url, "rb") as file:
            shapes = {name: tuple(shape) for name, shape, _ in whosmat(file)}
            times = np.ravel(loadmat(file, variable_names=["t"]).get("t", ()))
    except (MatReadError, IndexError, TypeError, zlib.error, NotImplementedError) as error:
        raise DataError(f"{url}: cannot be read as a MATLAB file; truncated or not MATLAB? ({error})") from error
    return Contents(shapes=shapes, times=times.astype(np.float64), backwards=False)
