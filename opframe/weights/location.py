"""Where weights are: local paths, anything fsspec opens, repositories of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from opframe.files.cache import cache_folder, remote_cache
from opframe.files.fetching import Download, fetch, name_in
from opframe.files.file import RemoteFile
from opframe.files.location import is_local, local_path
from opframe.files.once import made_once
from opframe.files.refusal import on_refusal
from opframe.files.retries import redacted
from opframe_registry import DataError, OpframeError

_log = logging.getLogger(__name__)
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
NEEDS_HUB = 'huggingface_hub is not installed; pip install "opframe[hub]"'
_LARGE = 10 * 2**20  # bytes from which on it is said that a file is fetched


class WeightsError(OpframeError):
    """Weights are missing, damaged, of another network, or not safe to read; the message names the file."""


def resolve_folder(where: str | Path) -> str:
    """A local path, or a URL. `org/name` that is no local path is a repository of the Hugging Face hub.

    Raises WeightsError where a repository is meant and huggingface_hub is not installed.
    """
    if isinstance(where, str) and _REPOSITORY.fullmatch(where) and not Path(where).expanduser().exists():
        if find_spec("huggingface_hub") is None:
            raise WeightsError(f"{where}: no such folder here; as a Hugging Face repository: {NEEDS_HUB}")
        return f"hf://{where}"
    return resolve(where)


def resolve(where: str | Path) -> str:
    """A local path, or a URL. Raises WeightsError for the hub's where huggingface_hub is not installed."""
    if "://" not in str(where):
        return str(Path(where).expanduser())
    url = str(where).rstrip("/")
    if url.startswith("hf://") and find_spec("huggingface_hub") is None:
        raise WeightsError(f"{url}: {NEEDS_HUB}")
    return local_path(url)


def local_folder(where: str) -> Path | None:
    """The path of a resolved location of this machine."""
    return Path(where) if is_local(where) else None


def read_bytes(url: str) -> bytes:
    """The content of a file. Raises WeightsError."""
    with local_copy(url) as path:
        return path.read_bytes()


@contextmanager
def local_copy(url: str) -> Iterator[Path]:
    """The file itself where it is local, else a copy of it. Raises WeightsError.

    A remote file is fetched once for all processes of a machine, below OPFRAME_CACHE, and again when its server has
    another version. A copy that leads to a WeightsError here, or to any error within `once_more`, is deleted.
    """
    if is_local(url):
        if not Path(url).is_file():
            raise WeightsError(f"{url}: no such file")
        yield Path(url)
        return
    with TemporaryDirectory(prefix="opframe-") as folder:
        try:
            path = _kept(url) or _fetched(url, Path(folder) / "weights")
        except DataError as error:
            raise WeightsError(str(error)) from None
        on_refusal(lambda: path.unlink(missing_ok=True))
        try:
            yield path
        except WeightsError:
            path.unlink(missing_ok=True)
            raise


def _kept(url: str) -> Path | None:
    """The copy of a file as it is now, which the first process fetches while others wait; None: it cannot be kept.

    Raises DataError.
    """
    file = RemoteFile(url, remote_cache())
    if not file.kept:  # there is no telling whether it still is the same
        return None
    folder = cache_folder() / "weights" / hashlib.sha256(file.place.encode()).hexdigest()[:16]
    path = folder / f"{file.name()[:16]}-{name_in(url)}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        _log.warning("%s: weights are not kept here (%s); let OPFRAME_CACHE name a folder with room", folder, error)
        return None
    with made_once(path):
        if not path.exists():
            if file.identity.size >= _LARGE:
                _log.warning("%s: fetched once to %s, %.3g MB", redacted(url), path, file.identity.size / 1e6)
            _fetched(url, path)
            for older in set(folder.glob("*-*")) - {path}:
                older.unlink()
    return path


def _fetched(url: str, path: Path) -> Path:
    return fetch(Download(url=url, path=path), lambda done, total: None)
