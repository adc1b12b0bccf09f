"""Files wherever they are, with errors that name them: what is remote goes through `opframe.data.remote`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import fsspec
import h5py

from opframe.data.remote.cache import remote_cache
from opframe.data.remote.file import RemoteFile
from opframe.data.remote.reader import reader
from opframe.data.remote.retries import redacted
from opframe.data.remote.transport import Identity
from opframe_registry import DataError, did_you_mean

_Answer = TypeVar("_Answer")

Versions = dict[str, Identity]
"""Which version of each remote file was opened, for all that is to read the same one."""

_SHOWN = 12
_AT_ONCE = 16  # remote files whose headers are read at the same time: each is a few requests, one after the other


def is_local(url: str) -> bool:
    """Whether a URL names a file of this machine."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> str:
    """The path of a local URL."""
    return url.removeprefix("file://")


def open_bytes(url: str, versions: Versions | None = None) -> BinaryIO:
    """Open a file for reading, of a remote one the version that was opened before. Raises DataError."""
    if not is_local(url):
        return reader(RemoteFile(url, remote_cache(), {} if versions is None else versions))
    try:
        return Path(local_path(url)).open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{url}: no such file") from error
    except OSError as error:
        raise DataError(f"{url}: cannot be read ({error})") from error


def each(action: Callable[[str], _Answer], urls: Iterable[str]) -> list[_Answer]:
    """What the action gives for each URL, in their order; of remote ones several at the same time."""
    urls = list(urls)
    if len(urls) < 2 or all(map(is_local, urls)):
        return [action(url) for url in urls]
    with ThreadPoolExecutor(min(len(urls), _AT_ONCE), thread_name_prefix="opframe-headers") as threads:
        return list(threads.map(action, urls))


def find_files(folder: str, pattern: str) -> list[str]:
    """URLs of the files of a folder whose names match a glob pattern, from anything fsspec lists. Raises DataError."""
    with explained(folder):
        filesystem, path = fsspec.core.url_to_fs(folder)
        wanted = f"{path}/{pattern}"
        found = filesystem.glob(wanted) if is_local(folder) else tried_again(folder, lambda: _glob(filesystem, wanted))
        return [filesystem.unstrip_protocol(file) for file in found]


def _glob(filesystem: Any, wanted: str) -> list[str]:
    if wanted.startswith(("http://", "https://")):
        try:  # where a server cannot be reached, fsspec's glob finds nothing
            filesystem.ls(re.split(r"[*?\[]", wanted)[0].rpartition("/")[0], detail=False)
        except FileNotFoundError:
            return []
    found: list[str] = filesystem.glob(wanted)
    return found


def tried_again(url: str, action: Callable[[], _Answer]) -> _Answer:
    """The result of something asked of a server, which may fail for a while. Raises DataError."""
    cache = remote_cache()
    return cache.retries.carry_out(url, action, lambda: cache.count(retries=1))


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
    place = redacted(url)
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{place}: no such file") from error
    except (ImportError, ValueError) as error:  # a protocol that is unknown, or whose package is not installed
        raise DataError(f"{place}: {error}") from error
    except OSError as error:
        raise DataError(f"{place}: cannot be read as HDF5; truncated or not HDF5? ({error})") from error


def is_hdf5(url: str, versions: Versions | None = None) -> bool:
    """Whether a file begins as HDF5 does; MATLAB puts 512 bytes of its own before. Raises DataError."""
    signature = b"\x89HDF\r\n\x1a\n"
    with open_bytes(url, versions) as file:
        head = file.read(520)
    return head.startswith(signature) or head[512:] == signature
