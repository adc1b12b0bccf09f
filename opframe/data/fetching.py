"""`opframe data fetch`: downloads that go on where they stopped, and are named only when they are right."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from attrs import frozen
from rich.console import Console

from opframe.console import Bar
from opframe.data.remote.retries import PASSING_STATUS
from opframe.files import write_atomically
from opframe_registry import DataError

_PIECE = 2**20
_TIMEOUT = 60.0
_SHORT = 15.0  # for what can do without an answer
_HEADERS = {"User-Agent": "opframe", "Accept-Encoding": "identity"}


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
class Checksum:
    """What a file is expected to be, by the name of a hash in hashlib."""

    algorithm: str
    value: str


@frozen(kw_only=True)
class Download:
    """One file: from where, to where, and its checksum, if its publisher gives one.

    `tries` is how often in a row the server may fail without sending anything; `wait` are the seconds before the
    second try, doubled before each further one.
    """

    url: str
    path: Path
    checksum: Checksum | None = None
    tries: int = 6
    wait: float = 1.0

    @property
    def partial(self) -> Path:
        return self.path.with_name(self.path.name + ".partial")

    @property
    def note(self) -> Path:
        """What the server called the version that the partial file is of."""
        return self.path.with_name(self.path.name + ".partial.json")


def name_in(url: str) -> str:
    """The name of a file in its address. Raises DataError where it is none, or not one of http or https."""
    name = Path(urllib.parse.unquote(urllib.parse.urlparse(url).path)).name
    if not url.startswith(("http://", "https://")) or not name:
        raise DataError(f"{url}: expected the http or https address of a file")
    return name


def size_of(url: str) -> int | None:
    """How many bytes a server says that a file has; None if it does not say, or does not answer now.

    It is asked for the file itself, of which nothing is read: links that lead to a cloud are often for that alone.
    """
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=_HEADERS), timeout=_SHORT) as answer:
            length: str | None = answer.headers.get("Content-Length")
    except (OSError, http.client.HTTPException, ValueError):
        return None
    return None if length is None else int(length)


def fetch(download: Download, shown: Shown) -> Path:
    """Download, verify and name the file; a file that is there and right is left alone.

    Raises DataError for an address that is none or does not answer, bytes with another checksum, and a file that is
    there and is another one.
    """
    name_in(download.url)
    if download.path.exists():
        if download.checksum and _digest(download.path, download.checksum.algorithm) != download.checksum.value:
            raise DataError(f"{download.path}: exists, and has another {download.checksum.algorithm} than asked for")
        return download.path
    try:
        download.path.parent.mkdir(parents=True, exist_ok=True)
        _complete(download, shown)
        _verify(download)
        os.replace(download.partial, download.path)
        download.note.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{download.partial}: cannot be written ({error}); the same command continues") from error
    return download.path


def _complete(download: Download, shown: Shown) -> None:
    """Ask again and again until all bytes are there. Raises DataError when nothing comes any more."""
    failures = 0
    while not _all_there(download):
        before = _length(download.partial)
        try:
            _receive(download, shown)
            return
        except _RefusedError as error:
            raise DataError(f"{download.url}: {error}") from error
        except (http.client.HTTPException, urllib.error.URLError, TimeoutError, ConnectionError, ssl.SSLError) as error:
            failures = 0 if _length(download.partial) > before else failures + 1
            if failures >= download.tries:
                raise DataError(
                    f"{download.url}: {_reason(error)}, {failures} times in a row; "
                    f"{_length(download.partial)} bytes are kept, the same command continues"
                ) from error
            time.sleep(download.wait * 2 ** max(failures - 1, 0))


class _RefusedError(Exception):
    """An answer that will not be another one when asked again."""


def _receive(download: Download, shown: Shown) -> None:
    """One request for what is missing, into the partial file."""
    have = _length(download.partial)
    version = _noted(download).get("version", "") if have else ""
    headers = dict(_HEADERS)
    if version:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(download.url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing is missing, or the file has become shorter: begin again
            _begin_again(download)
        elif error.code not in PASSING_STATUS:
            raise _RefusedError(f"the server answers {error.code} {error.reason}") from error
        raise
    with answer:
        if answer.status != 206:  # another version, or a server that knows no ranges
            _begin_again(download)
            have = 0
        name = answer.headers.get("ETag", "")
        version = name if name and not name.startswith("W/") else answer.headers.get("Last-Modified", "")
        length = answer.headers.get("Content-Length")
        total = 0 if length is None else have + int(length)
        note = {"url": download.url, "version": version, "size": None if length is None else total}
        write_atomically(download.note, json.dumps(note))
        with download.partial.open("ab") as file:
            _copy(answer, file, have, total, shown)


def _copy(answer: http.client.HTTPResponse, file: BinaryIO, have: int, total: int, shown: Shown) -> None:
    while piece := answer.read1(_PIECE):
        file.write(piece)
        have += len(piece)
        shown(have, total)
    if have < total:
        raise ConnectionError(f"the connection ended after {have} of {total} bytes")


def _noted(download: Download) -> dict[str, Any]:
    """What the server said of the partial file; nothing, where that is not known, so that versions are not mixed."""
    try:
        note: dict[str, Any] = json.loads(download.note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if note.get("url") == download.url else {}


def _all_there(download: Download) -> bool:
    size = _noted(download).get("size")
    return download.partial.exists() and size is not None and _length(download.partial) == size


def _begin_again(download: Download) -> None:
    download.partial.unlink(missing_ok=True)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    return str(getattr(error, "reason", error))


def _verify(download: Download) -> None:
    """Raises DataError, and removes the file, if it is not what was expected."""
    expected = download.checksum
    if expected is None:
        return
    found = _digest(download.partial, expected.algorithm)
    if found != expected.value:
        _begin_again(download)
        raise DataError(
            f"{download.url}: what came has the {expected.algorithm} {found}, expected {expected.value}; it was deleted"
        )


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
