"""Getting the files that a config names: what is there, what can be downloaded, and what a person has to get."""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath

from rich.console import Console

from opframe.config.settings import File
from opframe.console import bytes_in_words
from opframe.files.checksums import Checksum
from opframe.files.fetching import Download, DownloadBar, fetch, size_of
from opframe.files.location import is_local, local_path
from opframe_registry import ConfigError, DataError, did_you_mean


def chosen(files: Sequence[File], labels: Sequence[str]) -> list[File]:
    """The files of the datasets with these labels, or all. Raises ConfigError if that cannot be done."""
    known = list(dict.fromkeys(file.label for file in files))
    if not files:
        raise ConfigError("the config does not say where its data come from; it has no [[files]]")
    for label in labels:
        if label not in known:
            raise ConfigError(f"no file belongs to '{label}'{did_you_mean(label, known)}; there are {', '.join(known)}")
    return [file for file in files if not labels or file.label in labels]


def fetch_all(files: Sequence[File], console: Console) -> bool:
    """Get what is missing and has a link; say where the rest is to be had. Whether everything is there in the end.

    Files with a checksum are verified, also those that were there. Raises ConfigError for places on another machine.
    """
    for file in files:
        if not is_local(file.path):
            raise ConfigError(
                f"{file.path}: files are downloaded to folders of this machine, and this is a URL; "
                "set OPFRAME_DATA, or whatever the paths in the config begin with, to a folder"
            )
    _announce(files, console)
    missing = [file for file in files if not _get(file, console)]
    if missing:
        _say(console, f"missing: {', '.join(dict.fromkeys(file.label for file in missing))}")
    return not missing


def _announce(files: Sequence[File], console: Console) -> None:
    wanted = [file for file in files if not _is_there(file)]
    linked = [(file, file.bytes or size_of(file.url)) for file in wanted if file.url]
    total = sum(length or 0 for _, length in linked)
    unknown = sum(length is None for _, length in linked)
    words = [f"{len(files) - len(wanted)} of {len(files)} files are there"]
    if linked:
        parts = [bytes_in_words(total)] if total else []
        parts += [f"{unknown} of unknown size"] if unknown else []
        words.append(f"{len(linked)} to download ({', '.join(parts)})")
    if len(linked) < len(wanted):
        words.append(f"{len(wanted) - len(linked)} without a direct link")
    _say(console, "; ".join(words))


def _get(file: File, console: Console) -> bool:
    """Whether a file is there after what could be done."""
    if file.url is None or (file.unpack and _is_there(file)):
        there = _is_there(file)
        words = "is there" if there else f"has no direct link; get it from {file.homepage}"
        _say(console, f"{file.path}: {words}{'' if there else _note(file)}")
        return there
    try:
        path = _download(file, file.url, console)
        _say(console, f"{path}: {bytes_in_words(path.stat().st_size)}, {_verified(file)}{_note(file)}")
        if file.unpack:
            unpack(path, _path(file))
            _say(console, f"{file.path}: unpacked; {path.name} is no longer needed")
    except DataError as error:
        _say(console, str(error))
        return False
    return True


def _download(file: File, url: str, console: Console) -> Path:
    checksums = [Checksum(algorithm=name, value=value) for name in ("sha256", "md5") if (value := getattr(file, name))]
    path = _path(file)
    download = Download(
        url=url,
        path=path.with_name(f"{path.name}.zip") if file.unpack else path,
        checksum=checksums[0] if checksums else None,
    )
    with closing(DownloadBar(console, download.path.name)) as bar:
        return fetch(download, bar.show)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip archive into a folder, without the outer folders that all of its files share.

    The folder has its name when everything is there. Raises DataError for what is no archive, is damaged, or would
    write elsewhere.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [info for info in packed.infolist() if not info.is_dir() and "__MACOSX" not in info.filename]
            places = [PurePosixPath(info.filename) for info in members]
            for place in places:
                if place.is_absolute() or ".." in place.parts or "\\" in str(place):
                    raise DataError(f"{archive}: not unpacked, as its file {place} would be written elsewhere")
            shared = os.path.commonpath([place.parent for place in places]) if places else ""
            for info, place in zip(members, places, strict=True):
                target = partial / place.relative_to(shared)
                target.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(info) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 2**20)
        partial.rename(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error}); delete it to download it again") from error


def _path(file: File) -> Path:
    return Path(local_path(file.path))


def _is_there(file: File) -> bool:
    path = _path(file)
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _verified(file: File) -> str:
    name = next((name for name in ("sha256", "md5") if getattr(file, name)), None)
    return f"{name} is right" if name else "not verified, as no checksum is published"


def _note(file: File) -> str:
    return f"; {file.note}" if file.note else ""


def _say(console: Console, words: str) -> None:
    console.print(words, highlight=False, soft_wrap=True)
