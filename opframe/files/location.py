"""Files wherever they are, with errors that name them: what is remote goes through `reader.py`, with one cache."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import fsspec
import h5py
import numpy as np
from numpy.typing import NDArray

from opframe.files.cache import remote_cache
from opframe.files.file import RemoteFile
from opframe.files.reader import reader
from opframe.files.retries import redacted
from opframe.files.transport import Identity, open_filesystem
from opframe_registry import DataError, did_you_mean

_Answer = TypeVar("_Answer")

Versions = dict[str, Identity]
"""Which version of each remote file was opened, for all that is to read the same one."""

_SHOWN = 12
_REAL = "fiub"  # kinds of NumPy types that are real numbers
_LIBRARIES = {"fsspec", "h5py", "hdf5plugin", "json", "numcodecs", "numpy", "scipy", "zarr"}
NOT_HDF5 = "cannot be read as HDF5; truncated or not HDF5?"
_EXTRAS = {"http": "cloud", "https": "cloud", "s3": "cloud", "s3a": "cloud", "hf": "hub"}
_ATTRIBUTE, _NUMBERS = 2**16, 2**26  # elements at most of an attribute, and of a dataset that is read whole
_AT_ONCE = 16  # remote files whose headers are read at the same time: each is a few requests, one after the other


class NoArrayError(DataError):
    """A file can be read, but what is asked for is not in it."""


def is_local(url: str) -> bool:
    """Whether a URL names a file of this machine."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> str:
    """The path of a local URL."""
    return url.removeprefix("file://")


def open_bytes(url: str, versions: Versions | None = None) -> BinaryIO:
    """Open a file for reading, of a remote one the version that was opened before. Raises DataError."""
    if not is_local(url):
        require_filesystem(url)
        return reader(RemoteFile(url, remote_cache(), {} if versions is None else versions))
    with explained(url):
        return Path(local_path(url)).open("rb")


def require_filesystem(url: str) -> None:
    """Raises DataError where the package that a protocol needs is not installed, naming it."""
    protocol = url.split("://")[0].split("::")[0]
    with suppress(ValueError):  # a protocol that fsspec does not know is named where it is opened
        try:
            fsspec.get_filesystem_class(protocol)
        except ImportError as error:
            extra = _EXTRAS.get(protocol)
            way = f'; pip install "opframe[{extra}]"' if extra else ""
            raise DataError(
                f"{redacted(url)}: {protocol}:// needs a package that is not there ({error}){way}"
            ) from error


def each(action: Callable[[str], _Answer], urls: Iterable[str]) -> list[_Answer]:
    """What the action gives for each URL, in their order; of remote ones several at the same time."""
    urls = list(urls)
    if len(urls) < 2 or all(map(is_local, urls)):
        return [action(url) for url in urls]
    with ThreadPoolExecutor(min(len(urls), _AT_ONCE), thread_name_prefix="opframe-headers") as threads:
        contexts = [copy_context() for _ in urls]  # what is read there counts as read here
        return list(threads.map(lambda context, url: context.run(action, url), contexts, urls))


def find_files(folder: str, pattern: str) -> list[str]:
    """URLs of the files of a folder whose names match a glob pattern, from anything fsspec lists. Raises DataError."""
    return list(file_sizes(folder, pattern))


def file_sizes(folder: str, pattern: str) -> dict[str, int | None]:
    """The files that `find_files` finds, and the bytes of each. Raises DataError.

    None: a listing does not say, or it is a folder.
    """
    with explained(folder):
        require_filesystem(folder)
        filesystem, path = open_filesystem(folder)
        if is_local(folder) and filesystem.isfile(path):
            raise DataError(f"{folder}: is a file, expected a folder")
        wanted = f"{path}/{pattern}"
        if is_local(folder):
            found = filesystem.glob(wanted, detail=True)
        else:
            found = tried_again(folder, lambda: _glob(filesystem, wanted))
        sizes = {file: facts.get("size") if facts["type"] == "file" else None for file, facts in found.items()}
        return {filesystem.unstrip_protocol(file): size for file, size in sizes.items()}


def is_there(url: str) -> bool:
    """Whether there is a file or folder at a path or URL, or one that fits it where it has a `*`. Raises DataError."""
    if "*" in url:
        folder, _, _ = url[: url.index("*")].rpartition("/")
        return bool(find_files(folder or ".", url[len(folder) + 1 :] if folder else url))
    if is_local(url):
        return Path(local_path(url)).exists()
    with explained(url):
        require_filesystem(url)
        filesystem, path = open_filesystem(url)
        return tried_again(url, lambda: _is_known(filesystem, path))


def _is_known(filesystem: Any, path: str) -> bool:
    try:
        filesystem.info(path)
    except FileNotFoundError:
        return False
    return True


def _glob(filesystem: Any, wanted: str) -> dict[str, dict[str, Any]]:
    if wanted.startswith(("http://", "https://")):
        try:  # where a server cannot be reached, fsspec's glob finds nothing
            filesystem.ls(re.split(r"[*?\[]", wanted)[0].rpartition("/")[0], detail=False)
        except FileNotFoundError:
            return {}
    found: dict[str, dict[str, Any]] = filesystem.glob(wanted, detail=True)
    return found


def tried_again(url: str, action: Callable[[], _Answer]) -> _Answer:
    """The result of something asked of a server, which may fail for a while. Raises DataError."""
    cache = remote_cache()
    return cache.retries.carry_out(url, action, lambda: cache.count(retries=1))


def find_dataset(url: str, file: h5py.File, path: str) -> h5py.Dataset:
    """A dataset of real numbers in an open file. Raises DataError, or NoArrayError naming what is there instead."""
    found = file.get(path) if path else None
    if not isinstance(found, h5py.Dataset):
        names = dataset_names(file)
        listed = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        what = f"'{path}' is a group, not a dataset" if isinstance(found, h5py.Group) else missing(path, "dataset")
        raise NoArrayError(f"{url}: {what}{did_you_mean(path, names)}; found: {listed or 'nothing'}")
    if found.shape is None:
        raise DataError(f"{url}: '{path}' is an empty dataset without a shape")
    require_real(url, path, found.dtype)
    require_filters(f"{url}: '{path}'", found)
    return found


def missing(path: str, kind: str) -> str:
    """What to say of an array that is not there."""
    return f"has no {kind} '{path}'" if path else f"holds {kind}s by name, and none is named"


def require_real(url: str, path: str, dtype: np.dtype[Any]) -> None:
    """Raises DataError unless the elements of an array are real numbers."""
    if dtype.kind not in _REAL:
        name = f"'{path}'" if path else "the array"
        held = "other objects than numbers" if dtype.hasobject else str(dtype)
        raise DataError(f"{url}: {name} holds {held}, expected real numbers")


def require_filters(title: str, found: h5py.Dataset) -> None:
    """Raises DataError where a dataset is stored with a filter that is not there, naming what brings it."""
    properties = found.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(number)
        if h5py.h5z.filter_avail(code):
            continue
        with suppress(ImportError):
            import hdf5plugin  # noqa: F401  # registers its filters with HDF5
        if not h5py.h5z.filter_avail(code):
            what = f"filter {code} ({re.split('[:;]', name.decode(errors='replace'))[0]})"
            raise DataError(f'{title} is stored with {what}; pip install "opframe[filters]"')


def attribute(url: str, item: h5py.Group | h5py.Dataset, key: str, default: Any = None) -> Any:
    """An attribute, or `default` where it is not there. Raises DataError where a damaged header makes it enormous."""
    if key not in item.attrs:
        return default
    shape = item.attrs.get_id(key).shape
    if shape is not None and prod(shape) > _ATTRIBUTE:
        raise DataError(f"{url}: the attribute '{key}' of '{item.name}' has {prod(shape)} elements; damaged?")
    return item.attrs[key]


def read_numbers(url: str, found: h5py.Dataset) -> NDArray[np.float64]:
    """All values of a small dataset. Raises DataError where they are not real numbers."""
    path = found.name[1:]
    if found.shape is None:
        return np.zeros(0)
    require_real(url, path, found.dtype)
    if found.size > _NUMBERS:
        raise DataError(f"{url}: '{path}' has {found.size} values, which cannot be meant; damaged?")
    return np.asarray(found[()], np.float64)


def dataset_names(group: h5py.Group, limit: int = 100) -> list[str]:
    """Paths of the first datasets of a file, by a walk that stops early: files may hold thousands."""
    names: list[str] = []

    def visit(name: str | bytes, item: Any) -> bool | None:
        if isinstance(name, str) and isinstance(item, h5py.Dataset):  # bytes: a damaged name
            names.append(name)
        return True if len(names) >= limit else None

    group.visititems(visit)
    return names


@contextmanager
def explained(url: str, complaint: str = "cannot be read") -> Iterator[None]:
    """Says of which file an error is, which the libraries that read files do not always, after a `complaint`.

    Their errors become DataErrors, of whatever kind they are: over a damaged file each fails in many ways. Mistakes of
    this program's own go on.
    """
    place = redacted(url)
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{place}: to read it takes more memory than there is ({error})") from error
    except ImportError as error:  # the package of a protocol
        raise DataError(f"{place}: {error}") from error
    except Exception as error:
        if not isinstance(error, (OSError, ValueError)) and not _of_library(error):
            raise
        raise DataError(f"{place}: {_reason(error, complaint)}") from error


def _of_library(error: Exception) -> bool:
    """Whether it was a library that reads files in which an error came about, or what it uses of Python's own."""
    trace, found = error.__traceback__, False
    while trace is not None:
        package = trace.tb_frame.f_globals.get("__name__", "").split(".")[0]
        found = package in _LIBRARIES or (found and package in sys.stdlib_module_names)
        trace = trace.tb_next
    return found


def _reason(error: Exception, complaint: str) -> str:
    number = getattr(error, "errno", None)
    if isinstance(error, FileNotFoundError) or number == errno.ENOENT:
        return "no such file"
    if number == errno.EISDIR:
        return "is a folder, expected a file"
    if number == errno.ENOTDIR:
        return "no such file: part of the path is a file, where a folder is expected"
    if number in (errno.EACCES, errno.EPERM):
        return "may not be read by this user; change its permissions"
    if isinstance(error, ValueError) and "rotocol not known" in str(error):
        return str(error)
    words = " ".join(str(error).split()) or type(error).__name__
    return f"{complaint} ({words})"


def is_hdf5(url: str, versions: Versions | None = None) -> bool:
    """Whether a file begins as HDF5 does; MATLAB puts 512 bytes of its own before. Raises DataError."""
    signature = b"\x89HDF\r\n\x1a\n"
    with open_bytes(url, versions) as file:
        head = file.read(520)
    return head.startswith(signature) or head[512:] == signature
