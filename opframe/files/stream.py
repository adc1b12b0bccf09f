"""A whole remote file from front to back, or from where an earlier try has stopped."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from attrs import field, frozen
from fsspec.asyn import sync

from opframe.files.cache import RemoteCache
from opframe.files.checksums import Checksum, sent_along
from opframe.files.file import RemoteFile
from opframe.files.retries import WrongAnswerError
from opframe.files.transport import http_request, is_http, open_filesystem

_Coming = asyncio.Future[tuple[bytes, Exception | None]]

_PIECE = 2**20
_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416


@frozen(kw_only=True)
class Answer:
    """A file from byte `start` on; size, version and checksum, of all of it, are what the server says, if it does."""

    start: int
    size: int | None
    version: str
    checksum: Checksum | None = None
    pieces: Iterator[bytes | memoryview] = field(repr=False)


@contextmanager
def open_stream(url: str, cache: RemoteCache, start: int = 0, version: str = "") -> Iterator[Answer]:
    """A file from `start` on if it still is the version that is named, else from its beginning.

    Over HTTP it is one request, which need not know ranges; of other filesystems several parts come at a time. Raises
    DataError, or whatever the filesystem raises, also while pieces are taken.
    """
    filesystem, path = open_filesystem(url)
    if is_http(filesystem, path):
        with _over_http(filesystem, path, cache, start if version else 0, version) as answer:
            yield answer
        return
    file = RemoteFile(url, cache)
    identity = file.identity
    start = start if version and version == identity.version else 0
    yield Answer(start=start, size=identity.size, version=identity.version, pieces=file.stream(start))


@contextmanager
def _over_http(filesystem: Any, path: str, cache: RemoteCache, start: int, version: str) -> Iterator[Answer]:
    cache.count(requests=1)
    loop = filesystem.loop
    response, coming = sync(loop, _begin, filesystem, path, cache.timeout, start, version)
    try:
        first, length = _first(response, start), response.content_length
        if first not in (0, start):
            raise WrongAnswerError(f"bytes from {first} on came instead of from {start} on")
        yield Answer(
            start=first,
            size=None if length is None else first + length,
            version=_version(response),
            checksum=None if first else sent_along(response.headers, whole=True),
            pieces=_pieces(loop, response, coming, cache),
        )
    finally:
        loop.call_soon_threadsafe(response.close)  # ends the piece that is on its way, too


async def _begin(filesystem: Any, path: str, timeout: float, start: int, version: str) -> tuple[Any, _Coming]:
    """An answer, and its first piece, which is on its way."""
    response = await _ask(filesystem, path, timeout, start, version)
    return response, asyncio.ensure_future(_piece(response))


async def _ask(filesystem: Any, path: str, timeout: float, start: int, version: str) -> Any:
    """The answer, of which only the headers are read."""
    import aiohttp

    session = await filesystem.set_session()
    headers = {"Range": f"bytes={start}-", "If-Range": version} if start else {}
    url, options = http_request(filesystem, path, headers)
    limits = aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout)  # however long the whole takes
    response = await session.get(url, **{"timeout": limits, **options})
    if response.status == _RANGE_NOT_SATISFIABLE and start:  # the file has become shorter
        response.close()
        return await _ask(filesystem, path, timeout, 0, "")
    response.raise_for_status()
    return response


def _first(response: Any, start: int) -> int:
    """From which byte on the answer is; some servers do not say it of what was asked for."""
    if response.status != _PARTIAL_CONTENT:
        return 0
    part = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(part[1]) if part else start


def _version(response: Any) -> str:
    """A name that If-Range takes: not a weak ETag, which stays when bytes change."""
    name: str = response.headers.get("ETag", "")
    return name if name and not name.startswith("W/") else response.headers.get("Last-Modified", "")


def _pieces(loop: Any, response: Any, coming: _Coming, cache: RemoteCache) -> Iterator[bytes]:
    while True:
        piece, failure, coming = sync(loop, _next, response, coming)
        if piece:
            cache.count(bytes=len(piece))
            yield piece
        if failure is not None:
            raise failure
        if not piece:
            return


async def _next(response: Any, coming: _Coming) -> tuple[bytes, Exception | None, _Coming]:
    """The piece that was on its way, and the one behind it, which now is."""
    return *(await coming), asyncio.ensure_future(_piece(response))


async def _piece(response: Any) -> tuple[bytes, Exception | None]:
    """The next bytes, also those that came before a connection was lost, and what happened then."""
    parts: list[bytes] = []
    try:
        while sum(map(len, parts)) < _PIECE and (part := await response.content.readany()):
            parts.append(part)
    except Exception as error:  # it is raised when they are written
        return b"".join(parts), error
    return b"".join(parts), None
