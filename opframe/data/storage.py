"""Opening files through fsspec, with errors that name them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import h5py
from attrs import frozen

from opframe_registry import DataError, did_you_mean

_SHOWN = 12


def is_local(url: str) -> bool:
    """Whether a URL names a file of this machine."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> str:
    """The path of a local URL."""
    return url.removeprefix("file://")


def open_hdf5(url: str) -> h5py.File:
    """Open an HDF5 file for reading, from anything fsspec opens. Raises DataError."""
    with explained(url):
        if is_local(url):
            return h5py.File(local_path(url), "r")
        return h5py.File(fsspec.open(url, "rb").open(), "r")


def find_files(folder: str, pattern: str) -> list[str]:
    """URLs of the files of a folder whose names match a glob pattern, from anything fsspec lists. Raises DataError."""
    with explained(folder):
        filesystem, path = fsspec.core.url_to_fs(folder)
        return [filesystem.unstrip_protocol(file) for file in filesystem.glob(f"{path}/{pattern}")]


@frozen(kw_only=True)
class Stored:
    """What is known of a stored array without reading it."""

    shape: tuple[int, ...]
    attributes: dict[str, Any]


def inspect(url: str, path: str) -> Stored:
    """Shape and attributes of a dataset of an HDF5 file. Raises DataError naming what is there instead."""
    with open_hdf5(url) as file:
        found = find_dataset(url, file, path)
        return Stored(shape=found.shape, attributes=dict(found.attrs))


def find_dataset(url: str, file: h5py.File, path: str) -> h5py.Dataset:
    """A dataset of an open file. Raises DataError naming what is there instead."""
    found = file.get(path)
    if not isinstance(found, h5py.Dataset):
        names = dataset_names(file)
        listed = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        raise DataError(f"{url}: has no dataset '{path}'{did_you_mean(path, names)}; found: {listed or 'nothing'}")
    return found


def dataset_names(group: h5py.Group, limit: int = 100) -> list[str]:
    """Paths of the first datasets of a file, by a walk that stops early: files may hold thousands."""
    names: list[str] = []

    def visit(name: str, item: Any) -> bool | None:
        names.extend([name] if isinstance(item, h5py.Dataset) else [])
        return True if len(names) >= limit else None

    group.visititems(visit)
    return names


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Says of which file an error is: h5py and fsspec do not always."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{url}: no such file") from error
    except (ImportError, ValueError) as error:  # a protocol that is unknown, or whose package is not installed
        raise DataError(f"{url}: {error}") from error
    except OSError as error:
        raise DataError(f"{url}: cannot be read as HDF5; truncated or not HDF5? ({error})") from error


def is_hdf5(url: str) -> bool:
    """Whether a file begins as HDF5 does; MATLAB puts 512 bytes of its own before. Raises DataError."""
    signature = b"\x89HDF\r\n\x1a\n"
    with explained(url), fsspec.open(url, "rb") as file:
        head: bytes = file.read(520)
    return head.startswith(signature) or head[512:] == signature
