"""What lies at a path or URL: the shapes of the first arrays, found without reading them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import h5py

from opframe.files.location import attribute, each, explained, is_hdf5, is_local, tried_again
from opframe.files.refusal import once_more
from opframe.files.retries import redacted
from opframe.files.transport import open_filesystem
from opframe.readers.stores import Stores
from opframe.readers.zarr import ZarrStore
from opframe_registry import DataError

_Answer = TypeVar("_Answer")

ARRAYS = 100
"""Arrays of one file that are looked at."""
ARRAYS_AFAR = 24
"""Arrays of a remote file that are looked at: each may be a request."""
FILES = 24
"""Files of a folder that are looked at, at most so many from each folder in it as `_ALIKE` says."""
_ALIKE = 3
_DEPTH = 6
_SUFFIXES = (".h5", ".hdf5", ".nc", ".mat", ".npy")
_ZARR = {"zarr.json", ".zgroup", ".zarray", ".zmetadata"}

Shapes = dict[str, tuple[int, ...]]


def gather(url: str) -> Shapes:
    """Shapes by path inside a file, or by `file:path` in a folder. Raises DataError if nothing is there."""
    return once_more(lambda: _gather(url))


def _gather(url: str) -> Shapes:
    if not is_local(url) and url.lower().endswith(_SUFFIXES):
        return _of_file(url)  # without looking for a folder, which HTTP servers answer with the whole file
    with explained(url):
        filesystem, path = open_filesystem(url)
        path = path.rstrip("/")
        names = _names(url, filesystem, path)
        if names is None:
            return _of_file(url)
        if names & _ZARR:
            return ZarrStore(url).shapes(ARRAYS)
        files = _asked(url, lambda: list(_files(filesystem, path)))
    several = each(_of_file, [f"{url.rstrip('/')}/{file}" for file in files])
    found = {f"{file}:{name}": shape for file, one in zip(files, several, strict=True) for name, shape in one.items()}
    if not found:
        raise DataError(f"{redacted(url)}: holds no HDF5, NetCDF 4, MATLAB, NumPy (.npy) or Zarr files")
    return found


def _names(url: str, filesystem: Any, path: str) -> set[str] | None:
    """The names in a folder; None: it is a file. Raises DataError where there is neither."""
    if is_local(url) and not filesystem.exists(path):
        raise FileNotFoundError(path)
    try:
        entries: list[str] = _asked(url, lambda: filesystem.ls(path, detail=False))
    except DataError as error:
        hint = "; an HTTP server may list no folders: give the URL of a file" if path.startswith("http") else ""
        raise DataError(f"{error}{hint}") from None
    file = not entries if path.startswith("http") else entries == [path]
    return None if file else {entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries}


def _asked(url: str, question: Callable[[], _Answer]) -> _Answer:
    return question() if is_local(url) else tried_again(url, question)


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
    limit = ARRAYS if is_local(url) else ARRAYS_AFAR
    stores = Stores()
    suffix = Path(url.rstrip("/")).suffix.lower()
    if suffix not in (".npy", ".zarr", ".mat") and not is_hdf5(url, stores.versions):
        raise DataError(f"{redacted(url)}: not HDF5, NetCDF 4, MATLAB, NumPy (.npy) or zarr, which is what can be read")
    return stores.store(url).shapes(limit)


def stated_axes(url: str, path: str) -> str | None:
    """The axes that an HDF5 file says its array has, in an attribute `axes`; None where it says nothing."""
    if Path(url).suffix.lower() in (".npy", ".zarr", ".mat"):
        return None

    def stated(title: str, file: h5py.File) -> str | None:
        found = attribute(title, file[path], "axes")
        return "".join(found.split()) if isinstance(found, str) else None

    return Stores().ask(url, stated, "axes")


def in_words(contents: Mapping[str, tuple[int, ...]], shown: int = 12) -> list[str]:
    """One line for each of the first arrays."""
    lines = [f"{path or '(the array)'}  {' x '.join(map(str, shape))}" for path, shape in contents.items()]
    return [*lines[:shown], *([f"… and {len(lines) - shown} more"] if len(lines) > shown else [])]
