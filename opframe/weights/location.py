"""Where weights are: local paths, anything fsspec opens, repositories of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import fsspec

from opframe.data.storage import is_local, local_path
from opframe_registry import OpframeError

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_NEEDS_HUB = "huggingface_hub is not installed; pip install opframe[hub]"


class WeightsError(OpframeError):
    """Weights are missing, damaged, of another network, or not safe to read; the message names the file."""


def resolve_folder(where: str | Path) -> str:
    """A local path, or a URL. `org/name` that is no local path is a repository of the Hugging Face hub.

    Raises WeightsError where a repository is meant and huggingface_hub is not installed.
    """
    if isinstance(where, str) and _REPOSITORY.fullmatch(where) and not Path(where).expanduser().exists():
        if find_spec("huggingface_hub") is None:
            raise WeightsError(f"{where}: no such folder here; as a Hugging Face repository: {_NEEDS_HUB}")
        return f"hf://{where}"
    return resolve(where)


def resolve(where: str | Path) -> str:
    """A local path, or a URL. Raises WeightsError for the hub's where huggingface_hub is not installed."""
    if "://" not in str(where):
        return str(Path(where).expanduser())
    url = str(where).rstrip("/")
    if url.startswith("hf://") and find_spec("huggingface_hub") is None:
        raise WeightsError(f"{url}: {_NEEDS_HUB}")
    return local_path(url)


def local_folder(where: str) -> Path | None:
    """The path of a resolved location of this machine."""
    return Path(where) if is_local(where) else None


def read_bytes(url: str) -> bytes:
    """The content of a file. Raises WeightsError."""
    with _explained(url), fsspec.open(url, "rb") as file:
        content: bytes = file.read()
    return content


@contextmanager
def local_copy(url: str) -> Iterator[Path]:
    """The file itself where it is local, else a temporary copy of it. Raises WeightsError."""
    if is_local(url):
        if not Path(url).is_file():
            raise WeightsError(f"{url}: no such file")
        yield Path(url)
        return
    with TemporaryDirectory(prefix="opframe-") as folder:
        copy = Path(folder) / "weights"
        with _explained(url):
            filesystem, path = fsspec.core.url_to_fs(url)
            filesystem.get_file(path, str(copy))
        yield copy


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Says of which file an error is."""
    try:
        yield
    except FileNotFoundError as error:  # fsspec raises it for a server that does not answer, too, with a cause
        cause = f" ({_in_words(error.__cause__)})" if error.__cause__ else ""
        raise WeightsError(f"{url}: no such file{cause}") from error
    except Exception as error:  # every protocol brings errors of its own, and they have no base in common
        raise WeightsError(f"{url}: cannot be read ({_in_words(error)})") from error


def _in_words(error: BaseException) -> str:
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
