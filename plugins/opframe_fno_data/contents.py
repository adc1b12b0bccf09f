"""What a MATLAB file holds, found without reading its fields."""

from __future__ import annotations

import h5py
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from opframe.data.mat_store import MatStore
from opframe.data.stores import Stores


@frozen(kw_only=True, eq=False)
class Contents:
    """Shapes of the arrays in MATLAB's order of axes, and the times. `backwards`: the file has the axes reversed."""

    shapes: dict[str, tuple[int, ...]]
    times: NDArray[np.float64]
    backwards: bool


def look_into(stores: Stores, url: str) -> Contents:
    """Raises DataError if the file is damaged."""
    store = stores.store(url)
    return _of_old_format(store) if isinstance(store, MatStore) else stores.ask(url, _of_hdf5, "fno_mat")


def _of_hdf5(_: str, file: h5py.File) -> Contents:
    shapes = {name: item.shape[::-1] for name, item in file.items() if isinstance(item, h5py.Dataset)}
    times = np.ravel(file["t"][...] if "t" in shapes else ())
    return Contents(shapes=shapes, times=times.astype(np.float64), backwards=True)


def _of_old_format(store: MatStore) -> Contents:
    times = np.ravel(store.small("t") if "t" in store.shapes else ())
    return Contents(shapes=store.shapes, times=times.astype(np.float64), backwards=False)
