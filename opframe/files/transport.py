"""Ranges of bytes of one version of a remote file, through fsspec.

Each transport checks, as its protocol allows, that what comes is of the version that was opened.
"""

from __future__ import annotations

import re
import time
from typing import Any, Protocol

import fsspec
from attrs import define, field, frozen
from fsspec.asyn import sync
from fsspec.spec import AbstractBufferedFile

from opframe.files.checksums import sent_along
from opframe.files.retries import NotFetchedError, WrongAnswerError, redacted, status_of

# What filesystems call the version of a file, the most telling first; the last are times.
_VERSIONS = (
    "etag", "md5hash", "generation", "blobid", "lastmodified", "mtime", "modified", "updated", "created",
)  # fmt: skip
_RECHECK = 60.0  # seconds, where answers do not say of which version they are
_PRECONDITION_FAILED, _RANGE_NOT_SATISFIABLE = 412, 416


@frozen
class Identity:
    """Which version of a file it is: its size, and what the server calls the version, if it does."""

    size: int
    version: str = ""

    @classmethod
    def of(cls, url: str, info: dict[str, Any]) -> Identity:
        """From what fsspec says of a file. Raises DataError if that is not enough."""
        known = {name.lower().replace("-", "").replace("_", ""): value for name, value in info.items() if value}
        if not isinstance(info.get("size"), int):
            raise NotFetchedError(
                f"{redacted(url)}: the server does not say how large it is, so parts of it cannot be read; download it"
            )
        version = next((f"{name} {known[name]}" for name in _VERSIONS if name in known), "")
        return cls(size=info["size"], version=version.replace("W/", ""))


class Transport(Protocol):
    """Gets bytes of a file as it was when it was opened."""

    @property
    def identity(self) -> Identity:
        """Which version was opened."""

    def fetch(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop). Raises DataError if the file has changed, else whatever its filesystem raises."""


@define
class _Original:
    """The version that was opened, and whether the file still is that."""

    url: str
    filesystem: Any
    path: str
    identity: Identity
    _looked: float = field(factory=time.monotonic, init=False)

    def verify(self) -> None:
        """Ask the server. Raises DataError if it is another version now."""
        self.filesystem.invalidate_cache(self.path)
        now = Identity.of(self.url, self.filesystem.info(self.path))
        if now != self.identity:
            raise changed(self.url, self.identity, now)
        self._looked = time.monotonic()

    def verify_sometimes(self) -> None:
        """Ask the server if that was long ago."""
        if time.monotonic() - self._looked > _RECHECK:
            self.verify()

    def checked(self, data: bytes, wanted: int) -> bytes:
        """The data if its length is right; otherwise it is asked whether the file is another one."""
        if len(data) != wanted:
            self.verify()
            raise WrongAnswerError(f"{len(data)} bytes came of {wanted}")
        return data


def changed(url: str, opened: Identity, now: Identity) -> NotFetchedError:
    """The error for a file that is not the one that was opened."""
    return NotFetchedError(
        f"{redacted(url)}: the file has changed while it was in use; it was {opened.size} bytes"
        f" ({opened.version or 'version unknown'}), now it is {now.size} bytes ({now.version or 'version unknown'}); "
        f"start again to read the new one"
    )


@define
class _Http:
    """Over HTTP; every answer says which bytes of which version it holds, and that is looked at before the body."""

    original: _Original
    timeout: float

    @property
    def identity(self) -> Identity:
        return self.original.identity

    def fetch(self, start: int, stop: int) -> bytes:
        data: bytes = sync(self.original.filesystem.loop, self._get, start, stop, timeout=self.timeout)
        return self.original.checked(data, stop - start)

    async def _get(self, start: int, stop: int) -> bytes:
        filesystem = self.original.filesystem
        session = await filesystem.set_session()
        url, options = http_request(filesystem, self.original.path, {"Range": f"bytes={start}-{stop - 1}"})
        async with session.get(url, **options) as answer:
            if answer.status == _RANGE_NOT_SATISFIABLE:
                return b""  # shorter than it was
            answer.raise_for_status()
            self._inspect(answer, start, stop)
            data: bytes = await answer.read()
            checksum = sent_along(answer.headers, (start, stop) == (0, self.identity.size))
            if checksum and checksum.of(data) != checksum.value:
                raise WrongAnswerError(f"what came has another {checksum.algorithm} than the server says")
            return data

    def _inspect(self, answer: Any, start: int, stop: int) -> None:
        place, identity = redacted(self.original.url), self.identity
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if not found:
            raise NotFetchedError(f"{place}: the server does not serve ranges of bytes; download the file instead")
        name, _, _ = identity.version.partition(" ")
        header = {"etag": "ETag", "lastmodified": "Last-Modified"}.get(name, "")
        size = identity.size if found[3] == "*" else int(found[3])
        version = f"{name} {answer.headers[header]}".replace("W/", "") if header in answer.headers else identity.version
        if (size, version) != (identity.size, identity.version):
            raise changed(self.original.url, identity, Identity(size, version))
        if (int(found[1]), int(found[2])) != (start, stop - 1):
            raise WrongAnswerError(f"bytes {found[1]}-{found[2]} came instead of {start}-{stop - 1}")


@define
class _Buffered:
    """Through an opened file of fsspec: S3 (which asks for the version by If-Match), Google, Azure, Hugging Face."""

    original: _Original
    file: Any

    @property
    def identity(self) -> Identity:
        return self.original.identity

    def fetch(self, start: int, stop: int) -> bytes:
        self.original.verify_sometimes()
        try:
            # The method that every buffered file of fsspec has to offer. Unlike `cat_file` it keeps to the version
            # that was opened on S3, and unlike `read` it can be called by several threads.
            data = self.file._fetch_range(start, stop)
        except Exception as error:
            if status_of(error) in (_PRECONDITION_FAILED, _RANGE_NOT_SATISFIABLE):
                self.original.verify()
            raise
        return self.original.checked(data, stop - start)


@define
class _Plain:
    """Any other filesystem, such as memory."""

    original: _Original

    @property
    def identity(self) -> Identity:
        return self.original.identity

    def fetch(self, start: int, stop: int) -> bytes:
        self.original.verify_sometimes()
        data = self.original.filesystem.cat_file(self.original.path, start=start, end=stop)
        return self.original.checked(data, stop - start)


def filesystem_options(url: str) -> dict[str, Any]:
    """What fsspec is told beside what a person has set: that the environment's proxies and ~/.netrc hold for HTTP."""
    protocol = url.partition("://")[0]
    if protocol not in ("http", "https"):
        return {}
    return {"client_kwargs": {"trust_env": True, **fsspec.config.conf.get(protocol, {}).get("client_kwargs", {})}}


def open_filesystem(url: str) -> tuple[Any, str]:
    """The filesystem of fsspec that a URL is of, and its path there. Raises what fsspec raises."""
    opened: tuple[Any, str] = fsspec.url_to_fs(url, **filesystem_options(url))
    return opened


def is_http(filesystem: Any, path: str) -> bool:
    """Whether that is a file of an HTTP server, and not a copy of one."""
    web = path.startswith(("http://", "https://"))
    return web and isinstance(filesystem, fsspec.get_filesystem_class("http"))


def http_request(filesystem: Any, path: str, headers: dict[str, str]) -> tuple[Any, dict[str, Any]]:
    """URL and options for aiohttp: those that a person has set, and the headers."""
    options = dict(filesystem.kwargs)
    own = {"User-Agent": "opframe", "Accept-Encoding": "identity"}
    return filesystem.encode_url(path), {**options, "headers": {**own, **options.get("headers", {}), **headers}}


def open_transport(url: str, timeout: float) -> Transport:
    """Open a remote file. Raises DataError, or whatever its filesystem raises."""
    filesystem, path = open_filesystem(url)
    filesystem.invalidate_cache(path)  # a listing may be older than the file
    if is_http(filesystem, path):
        return _Http(_Original(url, filesystem, path, Identity.of(url, filesystem.info(path))), timeout)
    file = filesystem.open(path, "rb", cache_type="none")
    if isinstance(file, AbstractBufferedFile):
        return _Buffered(_Original(url, filesystem, path, Identity.of(url, file.details)), file)
    file.close()
    return _Plain(_Original(url, filesystem, path, Identity.of(url, filesystem.info(path))))
