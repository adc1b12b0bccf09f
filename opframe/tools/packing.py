"""`opframe data pack`: datasets written in the order in which training reads them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import torch
from attrs import evolve, frozen
from numpy.typing import NDArray
from rich.console import Console

from opframe.console import Bar
from opframe.files.location import is_local
from opframe.files.once import made_once
from opframe.files.stamps import stamps
from opframe.mixture.moments import Moments, moments
from opframe.mixture.resizing import check_resize, resize, resize_known
from opframe.mixture.source import Source, is_there, read_finite
from opframe.tools import packed
from opframe.tools.health import blocks
from opframe.tools.selection import Part
from opframe_registry import ConfigError, DataError, Dataset, Identity, Metadata
from opframe_registry.identity import locations
from opframe_registry.metadata import facts

_SHOWN = 3  # names of files that have changed


@frozen(kw_only=True)
class Packing:
    """One file to be made: what a split gives to training, or to evaluation, on its own grid or on another."""

    part: Part
    path: Path
    grid: tuple[int, ...] | None = None
    compressed: bool = False

    @property
    def what(self) -> str:
        return f"{self.part.title} ({self.part.split})"

    @property
    def source(self) -> Source:
        """What is packed: of training data also what is held out, which the packed ones hold out alike."""
        return evolve(self.part.source, held_out=())

    @property
    def metadata(self) -> Metadata:
        """What the file will say of itself."""
        metadata = self.source.metadata
        if self.grid is None or self.grid == metadata.grid:
            return metadata
        pairs = zip(metadata.grid, self.grid, strict=True)
        ratios = [own / new for own, new in pairs]
        spacing = metadata.spacing and tuple(step * ratio for step, ratio in zip(metadata.spacing, ratios, strict=True))
        return evolve(metadata, grid=self.grid, spacing=spacing)

    @property
    def fingerprint(self) -> str:
        """Changes with what is asked for, and with what the data say of themselves."""
        return packed.digest([self._asked(self.part.component.identity()), facts(self.metadata)])

    def made_from(self) -> packed.MadeFrom:
        """What the file is to be made from, as it is now."""
        known = self.part.component.identity(stamps, (self.part.split,))
        return packed.MadeFrom(asked=packed.digest(self._asked(known)), revision=known.revision, files=known.files)

    def _asked(self, known: Identity) -> dict[str, Any]:
        asked = {**known.numbers, **known.selection, "type": known.type}
        if self.part.split != "validation":  # what is held out is part of the training data
            asked.pop("validation", None)
        return {**asked, "split": self.part.split, "compressed": self.compressed}


def plan(parts: Sequence[Part], folder: Path, grid: tuple[int, ...] | None, compressed: bool) -> list[Packing]:
    """One file for each part, FOLDER/label/split.h5. Other than training data keep their grid: errors are of it.

    Raises ConfigError where two labels would share a folder, or data cannot come to the grid.
    """
    names: dict[str, str] = {}
    for part in parts:
        if names.setdefault(folder_name(part.component), part.title) != part.title:
            other = names[folder_name(part.component)]
            raise ConfigError(f"'{part.title}' and '{other}' would be packed into one folder; change a label")
        own = part.trajectories.metadata.grid
        if grid is not None and len(own) != len(grid):
            raise ConfigError(f"data.grid: {list(grid)} has {len(grid)} axes, but {part.title} has {len(own)}")
        if grid is not None and part.split == "train":
            check_resize(part.title, own, grid, part.resize, part.trajectories.metadata.missing)
    return [
        Packing(
            part=part,
            path=folder / folder_name(part.component) / f"{part.split}.h5",
            grid=grid if part.split == "train" else None,
            compressed=compressed,
        )
        for part in parts
    ]


def folder_name(component: Dataset) -> str:
    """A dataset's label as the name of a folder."""
    return re.sub(r"[^\w.+-]+", "_", component.title).lstrip(".") or "_"  # never a folder above


def pack(packing: Packing, console: Console) -> bool:
    """Write, verify and name one file; False if it was there already. One process at a time does it.

    Goes on where a killed packing stopped. A file whose sources have changed since is replaced, when the new one is
    whole. Raises DataError for a file that is something else, values that are not finite, a full disk, bytes that are
    read back otherwise than they were written, and sources that change meanwhile.
    """
    try:
        packing.path.parent.mkdir(parents=True, exist_ok=True)
        with made_once(packing.path):
            return _pack(packing, console)
    except OSError as error:
        raise DataError(f"{packing.path}: cannot be written ({error}); the same command continues") from error


def _pack(packing: Packing, console: Console) -> bool:
    path, partial = packing.path, packing.path.with_name(packing.path.name + ".partial")
    made_from = packing.made_from()
    if path.exists():
        outdated = _outdated(packing, made_from, path, console)
        if not outdated:
            return False
        _say(console, f"{path}: {outdated}; it is packed anew, and stays until that is done")
    if partial.exists() and (outdated := _outdated(packing, made_from, partial, console)):
        _say(console, f"{partial}: {outdated}; it is begun anew")
        partial.unlink()
    if not partial.exists():
        packed.create(partial, packing.metadata, packing.fingerprint, made_from)
    _write_all(packing, partial, console)
    packed.put_statistics(partial, _verify(packing, partial, console))
    if changed := packing.made_from().since(made_from):
        raise DataError(f"{_listed(changed)} changed while {packing.what} was packed; the same command begins anew")
    _finish(packing, partial, console)
    return True


def _outdated(packing: Packing, now: packed.MadeFrom, path: Path, console: Console) -> str:
    """What has changed since a file was packed, in words, or nothing. Raises DataError if it is something else."""
    places = packed.places(path)
    then, same = places.made_from, places.fingerprint == packing.fingerprint
    if (not same) if then is None else then.asked != now.asked:
        raise DataError(f"{path}: holds something else than {packing.what} would give; delete it or pack elsewhere")
    if then is None:
        packed_at = path.stat().st_mtime_ns
        changed = [name for name, stamp in now.files.items() if isinstance(stamp[1], int) and stamp[1] > packed_at]
        if not changed:
            _say(console, f"{path}: does not say which files it was packed from; none on this machine is younger")
    else:
        changed = now.since(then)
    if changed:
        return f"{_listed(changed)} changed since it was packed"
    return "" if same and (then is None or then.revision == now.revision) else "the dataset is read otherwise now"


def _listed(names: Sequence[str]) -> str:
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return f"{', '.join([*names[:_SHOWN], *more])} {'has' if len(names) == 1 else 'have'}"


def _say(console: Console, words: str) -> None:
    console.print(words, highlight=False, markup=False, soft_wrap=True)


def _write_all(packing: Packing, partial: Path, console: Console) -> None:
    """Write the trajectories; where files of this machine hold what cannot be packed, nothing is left to go on with."""
    try:
        _write(packing, partial, console)
    except DataError:
        if all(map(is_local, locations(packing.part.component))):
            partial.unlink(missing_ok=True)
        raise


def _write(packing: Packing, partial: Path, console: Console) -> None:
    """Write the trajectories that are not there yet, each followed by its checksum."""
    places = packed.places(partial)
    count = len(places.written)
    done = int(places.written.sum())
    with partial.open("r+b") as file, Bar(console, f"packing {packing.what}", count, done) as bar:
        for number in np.flatnonzero(~places.written).tolist():
            digest = _write_one(packing, number, file, places.offsets["data"])
            file.flush()
            packed.put(file, places.offsets["checksums"] + number * packed.DIGEST, digest)
            file.flush()
            done += 1
            bar.show(done)
        os.fsync(file.fileno())


def _write_one(packing: Packing, number: int, file: BinaryIO, begin: int) -> NDArray[np.uint8]:
    """Write one trajectory, in blocks of frames, and return its checksum."""
    lengths = packed.shape(packing.metadata)
    frame_bytes = 4 * int(np.prod(lengths[2:]))
    digest = packed.new_hash()
    for frames in blocks(packing.source.metadata, number):
        values = packed.little_endian(_read(packing, number, frames))
        digest.update(values.reshape(-1).view(np.uint8).data)
        packed.put(file, begin + (number * lengths[1] + frames.start) * frame_bytes, values)
    return np.frombuffer(digest.digest(), np.uint8)


def _read(packing: Packing, number: int, frames: range) -> NDArray[np.float32]:
    source = packing.source
    values = np.ascontiguousarray(read_finite(source, number, frames.start, frames.stop))
    if packing.grid is None:
        return values
    native, missing = torch.from_numpy(values), source.metadata.missing
    if missing is None:
        resized = resize(native, packing.grid, source.resize)
    else:
        resized, known = resize_known(native, torch.from_numpy(is_there(values, missing)), packing.grid, source.resize)
        resized = resized.masked_fill(~known, missing)
    written: NDArray[np.float32] = resized.numpy()
    return written


def _verify(packing: Packing, path: Path, console: Console) -> Moments:
    """Read everything back, compare the checksums, and return the statistics of what is there. Raises DataError."""
    found: Moments | None = None
    with h5py.File(path, "r") as file, Bar(console, f"verifying {packing.what}", len(file["data"])) as bar:
        for number, expected in enumerate(file["checksums"][:]):
            digest = packed.new_hash()
            for frames in blocks(packing.metadata, number):
                values = file["data"][number, frames.start : frames.stop]
                digest.update(values.reshape(-1).view(np.uint8).data)
                missing = packing.metadata.missing
                there = None if missing is None else np.moveaxis(is_there(values, missing), 1, 0)
                piece = moments(np.moveaxis(values, 1, 0), 1, there)
                found = piece if found is None else found + piece
            if digest.digest() != expected.tobytes():
                _forget(path, number)
                raise DataError(
                    f"{path}: trajectory {number} is read back otherwise than it was written; the disk may be failing. "
                    "The same command writes it again"
                )
            bar.show(number + 1)
    if found is None:
        raise DataError(f"{path}: {packing.what} has no frames to pack")
    return found


def _forget(path: Path, number: int) -> None:
    places = packed.places(path)
    with path.open("r+b") as file:
        packed.put(file, places.offsets["checksums"] + number * packed.DIGEST, np.zeros(packed.DIGEST, np.uint8))


def _finish(packing: Packing, partial: Path, console: Console) -> None:
    """Compress, where that is wanted, and give the file its name."""
    whole = partial
    if packing.compressed:
        whole = partial.with_name(partial.name + ".gzip")
        console.print(f"compressing {packing.what}", highlight=False)
        packed.compress(partial, whole)
        _verify(packing, whole, console)
    os.replace(whole, packing.path)
    partial.unlink(missing_ok=True)


def tables(packings: Sequence[Packing], folder: str) -> list[dict[str, Any]]:
    """The tables of a config that read the packed files instead, one for each dataset."""
    components = dict.fromkeys(packing.part.component for packing in packings)
    return [_table(component, folder) for component in components]


def _table(component: Dataset, folder: str) -> dict[str, Any]:
    table: dict[str, Any] = {"type": "prepared", "label": component.title}
    table["url"] = f"{folder}/{folder_name(component)}/{{split}}.h5"
    if component.weight != 1.0:
        table["weight"] = component.weight
    if component.rollout is not None:
        table["rollout"] = component.rollout
    if component.validation is not None:
        table["validation"] = component.validation
    return table
