"""`opframe data pack`: datasets written in the order in which training reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from operator import add
from pathlib import Path

import attrs
import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from opframe.console import Bar
from opframe.files.location import is_local
from opframe.files.once import made_once
from opframe.files.shards import Shard, all_left, forget_all, shards_beside
from opframe.mixture.moments import Moments, moments
from opframe.mixture.resizing import resize, resize_known
from opframe.mixture.source import is_there, read_finite
from opframe.tools import packed
from opframe.tools.health import blocks
from opframe.tools.packing_plan import Packing
from opframe.tools.work import Pool, done_by
from opframe_registry import DataError
from opframe_registry.identity import locations

_SHOWN = 3  # names of files that have changed


def pack(packing: Packing, console: Console, pool: Pool | None = None) -> bool:
    """Write, verify and name one file; False if it was there already. One process at a time does it, or its workers.

    Goes on where a killed packing stopped. A file whose sources have changed since is replaced, when the new one is
    whole. Raises DataError for a file that is something else, values that are not finite, a full disk, bytes that are
    read back otherwise than they were written, and sources that change meanwhile.
    """
    with _said(packing), made_once(packing.path):
        made_from = packing.made_from()
        if not _begin(packing, made_from, console):
            return False
        every = range(packing.metadata.trajectories)
        _write_all(packing, every, pool, console)
        found = _verify(packing, packing.partial, every, pool, console)
        _check_unchanged(packing, made_from)
        _finish(packing, found, console)
        return True


def pack_share(packing: Packing, shard: Shard, console: Console) -> bool:
    """Write and verify a part of the trajectories of one file, beside other machines; False if that was done already.

    `pack_merged` makes the file of it. Goes on where it was killed. Raises DataError as `pack` does.
    """
    with _said(packing):
        made_from = packing.made_from()
        with made_once(packing.path):
            begun = _begin(packing, made_from, console)
        if not begun or shard.left(packing.partial, _tells(packing, made_from)) is not None:
            return False
        numbers = shard.share(range(packing.metadata.trajectories))
        _write(packing, numbers, None, console)
        found = _verify(packing, packing.partial, numbers, None, console)
        _check_unchanged(packing, made_from)
        checksums = packed.checksums(packing.partial)
        record = {
            "numbers": [*numbers],
            "checksums": [checksums[number].tobytes().hex() for number in numbers],
            "moments": found and found.record(),
        }
        shard.leave(packing.partial, _tells(packing, made_from), record)
        return True


def pack_merged(packing: Packing, console: Console) -> bool:
    """Name the file that shards have written; False if it was there already.

    Where the parts of two machines meet it is read back once more, as a network's file system may mix up what they
    write side by side. Raises DataError, naming the shards that are missing.
    """
    with _said(packing), made_once(packing.path):
        made_from = packing.made_from()
        if packing.path.exists() and not _outdated(packing, made_from, packing.path, console):
            return False
        found = all_left(packing.partial, _tells(packing, made_from))
        offset = packed.places(packing.partial).offsets["checksums"]
        with packing.partial.open("r+b") as file:
            for left in found:
                for number, checksum in zip(left["numbers"], left["checksums"], strict=True):
                    packed.put(file, offset + number * packed.DIGEST, np.frombuffer(bytes.fromhex(checksum), np.uint8))
        for shard, left in zip(shards_beside(packing.partial), found, strict=True):
            _look_at_edges(packing, shard, left["numbers"], console)
        parts = [Moments.of(left["moments"]) for left in found if left["moments"] is not None]
        _finish(packing, reduce(add, parts) if parts else None, console)
        forget_all(packing.partial)
        return True


def _look_at_edges(packing: Packing, shard: Shard, numbers: Sequence[int], console: Console) -> None:
    try:
        _verify(packing, packing.partial, sorted({*numbers[:1], *numbers[-1:]}), None, console)
    except DataError as error:
        shard.forget(packing.partial)
        raise DataError(f"{error}, as --shard {shard}") from error


def _tells(packing: Packing, made_from: packed.MadeFrom) -> str:
    """Changes with what is packed, and with its sources."""
    return packed.digest([packing.fingerprint, attrs.asdict(made_from)])


@contextmanager
def _said(packing: Packing) -> Iterator[None]:
    """Raises DataError where the file cannot be written."""
    try:
        packing.path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DataError(f"{packing.path}: cannot be written ({error}); the same command continues") from error


def _begin(packing: Packing, made_from: packed.MadeFrom, console: Console) -> bool:
    """Allocate the file, or find what there is of it; False where it is there already and up to date."""
    path, partial = packing.path, packing.partial
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
    return True


def _check_unchanged(packing: Packing, made_from: packed.MadeFrom) -> None:
    if changed := packing.made_from().since(made_from):
        raise DataError(f"{_listed(changed)} changed while {packing.what} was packed; the same command begins anew")


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


def _write_all(packing: Packing, numbers: Sequence[int], pool: Pool | None, console: Console) -> None:
    """Write the trajectories; where files of this machine hold what cannot be packed, nothing is left to go on with."""
    try:
        _write(packing, numbers, pool, console)
    except DataError:
        if all(map(is_local, locations(packing.part.component))):
            packing.partial.unlink(missing_ok=True)
        raise


def _write(packing: Packing, numbers: Sequence[int], pool: Pool | None, console: Console) -> None:
    """Write those of the trajectories that are not there yet, each followed by its checksum."""
    partial = packing.partial
    places = packed.places(partial)
    left = [number for number in numbers if not places.written[number]]
    done = len(numbers) - len(left)
    tasks = [(packing, number, places.offsets["data"]) for number in left]
    with partial.open("r+b") as file, Bar(console, f"packing {packing.what}", len(numbers), done) as bar:
        for place, digest in done_by(pool, _write_one, tasks):
            packed.put(file, places.offsets["checksums"] + left[place] * packed.DIGEST, digest)
            file.flush()
            done += 1
            bar.show(done)
        os.fsync(file.fileno())


def _write_one(packing: Packing, number: int, begin: int) -> NDArray[np.uint8]:
    """Write one trajectory, in blocks of frames, and return its checksum."""
    lengths = packed.shape(packing.metadata)
    frame_bytes = 4 * int(np.prod(lengths[2:]))
    digest = packed.new_hash()
    with packing.partial.open("r+b") as file:
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


def _verify(
    packing: Packing, path: Path, numbers: Sequence[int], pool: Pool | None, console: Console
) -> Moments | None:
    """Read trajectories back, compare their checksums, and return the statistics of what is there. Raises DataError."""
    found: dict[int, Moments] = {}
    expected = packed.checksums(path)
    tasks = [(packing, path, number, expected[number].tobytes()) for number in numbers]
    with Bar(console, f"verifying {packing.what}", len(numbers)) as bar:
        for place, piece in done_by(pool, _verify_one, tasks):
            if piece is None:
                _forget(path, numbers[place])
                raise DataError(
                    f"{path}: trajectory {numbers[place]} is read back otherwise than it was written; the disk may be "
                    "failing. The same command writes it again"
                )
            found[place] = piece
            bar.show(len(found))
    return reduce(add, (found[place] for place in range(len(numbers)))) if found else None


def _verify_one(packing: Packing, path: Path, number: int, expected: bytes) -> Moments | None:
    """The statistics of one trajectory; None where its bytes are others."""
    digest, found = packed.new_hash(), []
    missing = packing.metadata.missing
    with h5py.File(path, "r") as file:
        for frames in blocks(packing.metadata, number):
            values = file["data"][number, frames.start : frames.stop]
            digest.update(values.reshape(-1).view(np.uint8).data)
            there = None if missing is None else np.moveaxis(is_there(values, missing), 1, 0)
            found.append(moments(np.moveaxis(values, 1, 0), 1, there))
    return reduce(add, found) if digest.digest() == expected else None


def _forget(path: Path, number: int) -> None:
    places = packed.places(path)
    with path.open("r+b") as file:
        packed.put(file, places.offsets["checksums"] + number * packed.DIGEST, np.zeros(packed.DIGEST, np.uint8))


def _finish(packing: Packing, found: Moments | None, console: Console) -> None:
    """Note the statistics, compress where that is wanted, and give the file its name."""
    partial = packing.partial
    if found is None:
        raise DataError(f"{partial}: {packing.what} has no frames to pack")
    packed.put_statistics(partial, found)
    whole = partial
    if packing.compressed:
        whole = partial.with_name(partial.name + ".gzip")
        console.print(f"compressing {packing.what}", highlight=False)
        packed.compress(partial, whole)
        _verify(packing, whole, range(packing.metadata.trajectories), None, console)
    os.replace(whole, packing.path)
    partial.unlink(missing_ok=True)
