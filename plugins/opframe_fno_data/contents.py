"""What a MATLAB file holds, found without reading its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from opframe.files.location import require_real
from opframe.readers.stores import Stores


@frozen(kw_only=True, eq=False)
class Contents:
    """Shapes of the arrays in MATLAB's order of axes, and the times. `backwards`: the file has the axes reversed."""

    shapes: dict[str, tuple[int, ...]]
    times: NDArray[np.float64]
    backwards: bool


def look_into(stores: Stores, url: str) -> Contents:
    """Raises DataError if the file is damaged."""
    return stores.ask(url, _describe, "fno_mat")


def _describe(url: str, header: Mapping[str, Any]) -> Contents:
    """A file of MATLAB 7.3 is HDF5, which has the axes reversed."""
    backwards = isinstance(header, h5py.File)
    order = -1 if backwards else 1
    shapes = {name: item.shape[::order] for name, item in header.items() if getattr(item, "shape", None) is not None}
    if "t" in shapes:
        require_real(url, "t", header["t"].dtype)
    times = np.ravel(header["t"][...] if "t" in shapes else ())
    return Contents(shapes=shapes, times=times.astype(np.float64), backwards=backwards)
