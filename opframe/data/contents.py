"""What lies at a path or URL: the shapes of the first arrays, found without reading them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from opframe.data.storage import dataset_names, explained, is_hdf5, is_local, local_path, open_hdf5
from opframe_registry import DataError

ARRAYS = 100
"""Arrays of one file that are looked at."""
FILES = 24
"""Files of a folder that are looked at, at most so many from each folder in it as `_ALIKE` says."""
_ALIKE = 3
_DEPTH = 6
_SUFFIXES = (".h5", ".hdf5", ".nc", ".mat", ".npy")
_ZARR = {"zarr.json", ".zgroup", ".zarray", ".zmetadata"}

Shapes = dict[str, tuple[int, ...]]


def gather(url: str) -> Shapes:
    """Shapes by path inside a file, or by `file:path` in a folder. Raises DataError if nothing is there."""
    with explained(url):
        filesystem, path = fsspec.core.url_to_fs(url)
        if not filesystem.exists(path):
            raise FileNotFoundError(path)
        folder = filesystem.isdir(path)
        names = {entry.rsplit("/", 1)[-1] for entry in filesystem.ls(path, detail=False)} if folder else set()
    if not folder:
        return _of_file(url)
    if names & _ZARR:
        return _of_zarr(url)
    found: Shapes = {}
    for file in _files(filesystem, path):
        inside = _of_zarr if file.endswith(".zarr") else _of_file
        found |= {f"{file}:{name}": shape for name, shape in inside(f"{url.rstrip('/')}/{file}").items()}
    if not found:
        raise DataError(f"{url}: holds no HDF5, NetCDF 4, MATLAB, NumPy (.npy) or Zarr files")
    return found


def _files(filesystem: Any, path: str) -> Iterator[str]:
    """The first files of a folder that may hold arrays, relative to it, a few from each folder in it."""
    seen = 0
    for folder, folders, files in filesystem.walk(path, maxdepth=_DEPTH):
        inner = folder[len(path) :].strip("/")
        stores = [name for name in folders if name.endswith(".zarr")]
        names = sorted([*stores, *(name for name in files if name.lower().endswith(_SUFFIXES))])
        if inner.endswith(".zarr") or ".zarr/" in inner:
            continue
        for name in names[:_ALIKE]:
            yield f"{inner}/{name}".lstrip("/")
            seen += 1
            if seen >= FILES:
                return


def _of_file(url: str) -> Shapes:
    suffix = Path(url).suffix.lower()
    if suffix == ".npy":
        return {"": _npy_shape(url)}
    if suffix == ".mat" and not is_hdf5(url):
        return _of_matlab(url)
    if not is_hdf5(url):
        raise DataError(f"{url}: not HDF5, NetCDF 4, MATLAB, NumPy (.npy) or zarr, which is what can be read")
    return _of_hdf5(url)


def _of_hdf5(url: str) -> Shapes:
    with explained(url), open_hdf5(url) as file:
        shapes = {name: file[name].shape for name in dataset_names(file, ARRAYS)}
    return {name: shape for name, shape in shapes.items() if shape is not None}


def _npy_shape(url: str) -> tuple[int, ...]:
    with explained(url), fsspec.open(url, "rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return tuple(int(length) for length in read(file)[0])


def _of_matlab(url: str) -> Shapes:
    from scipy.io import whosmat

    with explained(url), fsspec.open(url, "rb") as file:
        return {name: tuple(shape) for name, shape, _ in whosmat(file)}


def _of_zarr(url: str) -> Shapes:
    with explained(url):
        import zarr

        store = local_path(url) if is_local(url) else url
        opened = zarr.open(store, mode="r")
    if isinstance(opened, zarr.Array):
        return {"": opened.shape}
    arrays = [(name, item.shape) for name, item in opened.members(max_depth=None) if isinstance(item, zarr.Array)]
    return dict(sorted(arrays)[:ARRAYS])


def in_words(contents: Mapping[str, tuple[int, ...]], shown: int = 12) -> list[str]:
    """One line for each of the first arrays."""
    lines = [f"{path or '(the array)'}  {' x '.join(map(str, shape))}" for path, shape in contents.items()]
    return [*lines[:shown], *([f"… and {len(lines) - shown} more"] if len(lines) > shown else [])]
