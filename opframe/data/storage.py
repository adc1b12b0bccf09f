"""Reading windows of HDF5 files through fsspec.

The prepared layout (DPOT protocol) is a dataset `data`, either (N, *grid, T, C) in one file or (*grid, T, C)
in one file per trajectory; a missing channel axis means C = 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import fsspec
import h5py
import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from opframe_registry import DataError, Metadata


def is_local(url: str) -> bool:
    """Whether a URL names a file of this machine."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> str:
    """The path of a local URL."""
    return url.removeprefix("file://")


def open_hdf5(url: str) -> h5py.File:
    """Open an HDF5 file for reading, from anything fsspec opens. Raises DataError."""
    with _explained(url):
        if is_local(url):
            return h5py.File(local_path(url), "r")
        return h5py.File(fsspec.open(url, "rb").open(), "r")


def find_files(folder: str, pattern: str) -> list[str]:
    """URLs of the files of a folder whose names match a glob pattern, from anything fsspec lists. Raises DataError."""
    with _explained(folder):
        filesystem, path = fsspec.core.url_to_fs(folder)
        return [filesystem.unstrip_protocol(file) for file in filesystem.glob(f"{path}/{pattern}")]


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Says of which file an error is: h5py and fsspec do not always."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{url}: no such file") from error
    except (ImportError, ValueError) as error:  # a protocol that is unknown, or whose package is not installed
        raise DataError(f"{url}: {error}") from error
    except OSError as error:
        raise DataError(f"{url}: cannot be read as HDF5; truncated or not HDF5? ({error})") from error


@frozen(kw_only=True)
class ArrayShape:
    """What is known of a prepared file without reading its data."""

    shape: tuple[int, ...]
    attributes: dict[str, Any]


def inspect(url: str) -> ArrayShape:
    """Shape and attributes of the dataset `data` of a file. Raises DataError."""
    with open_hdf5(url) as file:
        data = _data(url, file)
        return ArrayShape(shape=data.shape, attributes=dict(data.attrs))


def _data(url: str, file: h5py.File) -> h5py.Dataset:
    data = file.get("data")
    if not isinstance(data, h5py.Dataset):
        raise DataError(f"{url}: has no dataset 'data'; found: {', '.join(file) or 'nothing'}")
    return data


def _view(url: str) -> Any:
    """The array of a file, as a memory map where the file allows it.

    A window of the prepared layout is strided over the whole trajectory. HDF5 gathers it element by
    element, a memory map does not, so contiguous local datasets are mapped by their offset in the file.
    """
    file = open_hdf5(url)
    data = _data(url, file)
    offset = data.id.get_offset()
    if not is_local(url) or offset is None or data.dtype.hasobject:
        return data
    shape, dtype = data.shape, data.dtype
    file.close()
    try:
        return np.memmap(local_path(url), dtype=dtype, mode="r", offset=offset, shape=shape)
    except (OSError, ValueError) as error:
        raise DataError(f"{url}: shorter than its header says; truncated? ({error})") from error


@define
class PreparedTrajectories:
    """Trajectories in the prepared layout: one file of many, or one file for each.

    `files` is one URL (with `single`) or one for each trajectory; `has_channels` says whether the last axis is C.
    `first` is where this set begins among the trajectories that are stored.
    """

    metadata: Metadata
    files: Sequence[str]
    single: bool
    has_channels: bool
    first: int = 0
    open_files: int = 64
    _views: dict[str, Any] = field(factory=dict, init=False, repr=False, eq=False)

    def __getstate__(self) -> tuple[Any, ...]:
        """Open handles stay behind: they do not survive a change of process."""
        return (self.metadata, self.files, self.single, self.has_channels, self.first, self.open_files)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.metadata, self.files, self.single, self.has_channels, self.first, self.open_files = state
        self._views = {}

    def read(self, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
        """Frames [start, stop) as (T, C, *grid) float32. Raises DataError."""
        meta = self.metadata
        if not 0 <= trajectory < meta.trajectories or not 0 <= start < stop <= meta.frames:
            raise DataError(
                f"{self.files[0]}: trajectory {trajectory}, frames {start}..{stop} asked for, but there are "
                f"{meta.trajectories} trajectories of {meta.frames} frames"
            )
        stored = self.first + trajectory
        url = self.files[0] if self.single else self.files[stored]
        array = self._view(url)
        expected = (*meta.grid, meta.frames, *([len(meta.channels)] if self.has_channels else []))
        if (array.shape[1:] if self.single else array.shape) != expected:
            raise DataError(f"{url}: shape {array.shape}, expected {expected} (*grid, T, C) as in {self.files[0]}")
        time = (slice(None),) * len(meta.grid) + (slice(start, stop),)
        try:
            window = np.asarray(array[(stored, *time) if self.single else time], dtype=np.float32)
        except OSError as error:
            raise DataError(f"{url}: trajectory {stored} cannot be read; truncated? ({error})") from error
        if not self.has_channels:
            window = window[..., None]
        return np.moveaxis(window, (-2, -1), (0, 1))

    def _view(self, url: str) -> Any:
        """The file's array; the least recently used one is closed when too many are open."""
        view = self._views.pop(url, None)
        if view is None:
            while len(self._views) >= self.open_files:
                oldest = self._views.pop(next(iter(self._views)))
                if isinstance(oldest, h5py.Dataset):
                    oldest.file.close()
            view = _view(url)
        self._views[url] = view
        return view
