"""Whole files from anywhere: fetching goes on where it stopped, and a file is named only when it is right."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from attrs import evolve, frozen
from rich.console import Console

from opframe.console import Bar
from opframe.files.atomic import write_atomically
from opframe.files.cache import remote_cache
from opframe.files.checksums import Checksum
from opframe.files.retries import NotFetchedError, Retries, redacted
from opframe.files.stream import Answer, open_stream
from opframe_registry import DataError

_SHORT = 15.0  # seconds, for what can do without an answer


class Shown(Protocol):
    """Called with the bytes that are there, and how many there will be (0: unknown)."""

    def __call__(self, done: int, total: int) -> None: ...


class DownloadBar:
    """A bar of megabytes, which begins when the server has said how many there are."""

    def __init__(self, console: Console, what: str) -> None:
        self._console, self._what = console, what
        self._bar: Bar | None = None

    def show(self, done: int, total: int) -> None:
        """Move to `done` of `total` bytes."""
        if self._bar is None:
            self._bar = Bar(self._console, self._what, total // 10**6, done // 10**6).__enter__()
        self._bar.show(done // 10**6, "MB")

    def close(self) -> None:
        """Take the bar down."""
        if self._bar:
            self._bar.__exit__(None, None, None)


@frozen(kw_only=True)
class Download:
    """One file: from where, to where, and its checksum, if its publisher gives one."""

    url: str
    path: Path
    checksum: Checksum | None = None

    @property
    def partial(self) -> Path:
        return self.path.with_name(self.path.name + ".partial")

    @property
    def note(self) -> Path:
        """What the server said of the file that the partial one is of."""
        return self.path.with_name(self.path.name + ".partial.json")


def name_in(url: str) -> str:
    """The name of a file in its address. Raises DataError where it is none, or a path."""
    parts = urllib.parse.urlparse(url)
    web = parts.scheme in ("http", "https")
    name = Path(urllib.parse.unquote(parts.path or ("" if web else parts.netloc))).name
    if "://" not in url or url.startswith("file://") or not name:
        raise DataError(f"{redacted(url)}: expected the http or https address of a file, or another that fsspec opens")
    return name


def size_of(url: str) -> int | None:
    """How many bytes a server says that a file has; None if it does not say, or does not answer now.

    It is asked for the file itself, of which hardly anything is read: links that lead to a cloud are often for that
    alone.
    """
    cache = evolve(remote_cache(), timeout=_SHORT)

    def ask() -> int | None:
        with open_stream(url, cache) as answer:
            return answer.size

    try:
        return Retries(attempts=1).carry_out(url, ask, lambda: None)
    except DataError:
        return None


def fetch(download: Download, shown: Shown) -> Path:
    """Download, verify and name the file; a file that is there and right is left alone.

    Its checksum is the download's, or the one that the server sends along. Raises DataError for an address that is none
    or does not answer, bytes with another checksum, and a file that is there and is another one.
    """
    name_in(download.url)
    if download.path.exists():
        if download.checksum and _digest(download.path, download.checksum.algorithm) != download.checksum.value:
            raise DataError(f"{download.path}: exists, and has another {download.checksum.algorithm} than asked for")
        return download.path
    with _written(download):
        download.path.parent.mkdir(parents=True, exist_ok=True)
    _complete(download, shown)
    with _written(download):
        _verify(download)
        os.replace(download.partial, download.path)
        download.note.unlink(missing_ok=True)
    return download.path


def _complete(download: Download, shown: Shown) -> None:
    """Ask again and again until all bytes are there. Raises NotFetchedError when nothing comes any more."""
    cache = remote_cache()
    try:
        if not _all_there(download):
            cache.retries.carry_out(
                download.url,
                lambda: _receive(download, shown),
                failed=lambda: cache.count(retries=1),
                reached=lambda: _length(download.partial),
            )
    except NotFetchedError as error:
        have = _length(download.partial)
        kept = f"; {have} bytes are kept, the same command continues" if have else ""
        raise NotFetchedError(f"{error}{kept}") from None


def _receive(download: Download, shown: Shown) -> None:
    """One request for what is missing, into the partial file."""
    have, noted = _length(download.partial), _noted(download)
    with open_stream(download.url, remote_cache(), have, noted.get("version", "") if have else "") as answer:
        with _written(download):
            if not answer.start:  # nothing was there, or it is another version, or the server knows no ranges
                download.partial.unlink(missing_ok=True)
                _note(download, answer)
            file = download.partial.open("ab")
        with file:
            done = answer.start
            for piece in answer.pieces:
                with _written(download):
                    file.write(piece)
                done += len(piece)
                shown(done, answer.size or 0)
    if answer.size is not None and done < answer.size:
        raise ConnectionError(f"the connection ended after {done} of {answer.size} bytes")


def _note(download: Download, answer: Answer) -> None:
    """Write down what the server says of the file."""
    checksum = answer.checksum and [answer.checksum.algorithm, answer.checksum.value]
    note = {"url": _named(download.url), "version": answer.version, "size": answer.size, "checksum": checksum}
    write_atomically(download.note, json.dumps(note))


def _noted(download: Download) -> dict[str, Any]:
    """What the server said of the partial file; nothing, where that is not known, so that versions are not mixed."""
    try:
        note: dict[str, Any] = json.loads(download.note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if note.get("url") in (_named(download.url), download.url) else {}  # it was the URL itself once


def _named(url: str) -> str:
    """An address as a hash: it may hold credentials."""
    return hashlib.sha256(url.encode()).hexdigest()


def _all_there(download: Download) -> bool:
    size = _noted(download).get("size")
    return download.partial.exists() and size is not None and _length(download.partial) == size


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _verify(download: Download) -> None:
    """Raises DataError, and removes the file, if it is not what was expected."""
    expected, said = download.checksum, _noted(download).get("checksum")
    if expected is None and said:
        expected = Checksum(algorithm=said[0], value=said[1])
    if expected is None:
        return
    found = _digest(download.partial, expected.algorithm)
    if found != expected.value:
        download.partial.unlink()
        raise DataError(
            f"{redacted(download.url)}: what came has the {expected.algorithm} {found}, expected {expected.value}; "
            "it was deleted"
        )


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


@contextmanager
def _written(download: Download) -> Iterator[None]:
    """Says where writing fails, which no server is to blame for."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{download.partial}: cannot be written ({error}); the same command continues") from error
