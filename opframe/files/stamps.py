"""Which versions of files are there, told by size and time of change, or by what a server says; no content is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec

from opframe.files.location import each, explained, find_files, is_local, local_path, tried_again
from opframe.files.retries import passes, redacted
from opframe.files.transport import Identity
from opframe_registry import Stamp


def stamps(url: str) -> dict[str, Stamp]:
    """The stamps of all files at a path or URL of a file, a folder or a pattern; where nothing is there, none.

    A remote file whose version the server does not say has none, nor have the files of a folder behind HTTP: of them
    the URL must do. Raises DataError where a server does not answer.
    """
    found: dict[str, Stamp] = {}
    for one in each(_stamps_below, _places(url)):
        found |= one
    return found


def _places(url: str) -> list[str]:
    """The files and folders that a URL names, which may be a pattern."""
    signs = "*?[" if is_local(url) else "*["  # what comes after "?" in an address is no part of its path
    first = min((url.index(sign) for sign in signs if sign in url), default=None)
    if first is None or (is_local(url) and os.path.exists(local_path(url))):
        return [url]
    folder, _, _ = url[:first].rpartition("/")
    return find_files(folder or ".", url[len(folder) + 1 :] if folder else url)


def _stamps_below(url: str) -> dict[str, Stamp]:
    if not is_local(url):
        return _remote(url)
    path = str(Path(local_path(url)))
    if os.path.isfile(path):
        return {path: _stamp(os.stat(path))}
    return dict(_inside(path, ())) if os.path.isdir(path) else {}


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns


def _inside(folder: str, above: tuple[str, ...]) -> Iterator[tuple[str, Stamp]]:
    """The files of a folder at any depth, also through links, but not through one that leads back up.

    What may not be listed, or is gone in the meantime, is not there.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    with suppress(PermissionError, FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _inside(entry.path, (*above, real))
            elif entry.is_file():
                with suppress(FileNotFoundError):
                    yield entry.path, _stamp(entry.stat())


def _remote(url: str) -> dict[str, Stamp]:
    with explained(url):
        filesystem, path = fsspec.core.url_to_fs(url)
    infos: dict[str, Any] = tried_again(url, lambda: _said_of(filesystem, path))
    known = {name: Identity.of(url, info) for name, info in infos.items() if isinstance(info.get("size"), int)}
    return {
        redacted(filesystem.unstrip_protocol(name)): (identity.size, identity.version)
        for name, identity in known.items()
        if identity.version
    }


def _said_of(filesystem: Any, path: str) -> dict[str, Any]:
    """What a server says of a file, or of those of a folder; nothing where it does not answer such questions."""
    try:
        filesystem.invalidate_cache(path)
        info = filesystem.info(path)
        if info.get("type") != "directory":
            return {path: info}
        return {name: one for name, one in filesystem.find(path, detail=True).items() if one.get("type") == "file"}
    except Exception as error:  # every filesystem raises errors of its own
        if passes(error):
            raise
        return {}
