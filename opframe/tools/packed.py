"""The file that packing makes: one HDF5 file of whole trajectories, in the order in which windows are read.

`data` (N, T, C, *grid) is contiguous float32, so that a window is one run of bytes; its attributes say what the axes
and channels are. Where trajectories differ in length, `lengths` (N,) says how many frames of each are data. What lies
behind them is never written, so that file systems with holes spend nothing on it, nor read. Beside it lie `checksums`
(N, 16), BLAKE2b of each trajectory's bytes, `statistics` of each channel, `parameters` of the equation, and
`made_from`, what was asked for and which versions of files it was packed from. While it is being written it is called
`.partial`, and a checksum of zeros says that a trajectory is not in it yet. Everything is allocated at once and then
written as bytes in place: HDF5's own bookkeeping does not change any more, so that a kill at any moment leaves a file
that can be continued.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import h5py
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from opframe.files.atomic import appearing
from opframe.mixture.moments import Moments
from opframe.mixture.source import lengths_of
from opframe.readers.arrays import SPACE
from opframe_registry import DataError, Metadata, Stamp
from opframe_registry.metadata import axes_in_words

DIGEST = 16
STATISTICS = ("mean", "std", "min", "max")
_DESCRIBED = (
    "channels", "predicted", "units", "spacing", "boundary", "time_step", "source", "license", "split", "missing"
)  # fmt: skip


@frozen(kw_only=True)
class MadeFrom:
    """What a file is packed from: `asked` is a digest of what was asked for, `files` are the stamps of its sources."""

    asked: str
    revision: int
    files: Mapping[str, Stamp]

    def since(self, earlier: MadeFrom) -> list[str]:
        """The names of the files that are others than earlier, were not there then, or are gone."""
        return sorted(name for name in {*self.files, *earlier.files} if self.files.get(name) != earlier.files.get(name))

    def to_bytes(self) -> NDArray[np.uint8]:
        """As it lies in a file."""
        return np.frombuffer(json.dumps(attrs.asdict(self)).encode(), np.uint8)

    @classmethod
    def of(cls, content: NDArray[np.uint8]) -> MadeFrom:
        """From what lies in a file. Raises ValueError, KeyError or TypeError."""
        record = json.loads(content.tobytes())
        files = {name: tuple(stamp) for name, stamp in record["files"].items()}
        return cls(asked=record["asked"], revision=record["revision"], files=files)


def shape(metadata: Metadata) -> tuple[int, ...]:
    """The shape of `data`."""
    return (metadata.trajectories, metadata.frames, len(metadata.channels), *metadata.grid)


def new_hash() -> blake2b:
    """A hash of the kind of the checksums."""
    return blake2b(digest_size=DIGEST)


def little_endian(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values as they lie in the file."""
    return np.ascontiguousarray(values, dtype="<f4")


def create(path: Path, metadata: Metadata, fingerprint: str, made_from: MadeFrom) -> None:
    """Allocate a file for all trajectories. Raises DataError if there is no room for it."""
    frame_bytes = 4 * len(metadata.channels) * prod(metadata.grid)
    need, free = frame_bytes * sum(lengths_of(metadata)), shutil.disk_usage(path.parent).free
    if need > free:
        raise DataError(f"{path}: takes {need / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free there")
    with appearing(path) as beginning, h5py.File(beginning, "w") as file:
        data = _allocate(file, b"data", shape(metadata), h5py.h5t.IEEE_F32LE)
        data.attrs["axes"] = " ".join(("n", "t", "c", *SPACE[: len(metadata.grid)]))
        data.attrs["fingerprint"] = fingerprint
        for name, groups in (("vectors", metadata.vectors), ("conserved", metadata.conserved)):
            if groups:  # of different lengths, which no array has
                data.attrs[name] = json.dumps(groups)
        for name in _DESCRIBED:
            value = axes_in_words(metadata.boundary) if name == "boundary" else getattr(metadata, name)
            if value not in (None, "", ()):
                data.attrs[name] = list(value) if isinstance(value, tuple) else value
        file["made_from"] = made_from.to_bytes()
        if metadata.lengths:
            file["lengths"] = np.asarray(metadata.lengths, np.int64)
        file["checksums"] = np.zeros((metadata.trajectories, DIGEST), np.uint8)
        for name in STATISTICS:
            file[f"statistics/{name}"] = np.zeros(len(metadata.channels))
        for name, values in metadata.parameters.items():
            file[f"parameters/{name.replace('/', '_')}"] = np.asarray(values, np.float64)


def _allocate(file: h5py.File, name: bytes, lengths: tuple[int, ...], type_: Any) -> h5py.Dataset:
    """A contiguous dataset that has its place in the file before anything is written into it."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(lengths)
    return h5py.Dataset(h5py.h5d.create(file.id, name, type_, space, dcpl=properties))


@frozen(kw_only=True)
class Places:
    """Where the arrays of a file begin, in bytes, which trajectories it holds already, and what it was made from.

    Files that were made before that was noted do not say it.
    """

    offsets: Mapping[str, int]
    written: NDArray[np.bool_]
    fingerprint: str
    made_from: MadeFrom | None


def places(path: Path) -> Places:
    """Look into a packed file, whole or partial. Raises DataError if it is none."""
    names = ("data", "checksums", *(f"statistics/{name}" for name in STATISTICS))
    try:
        with h5py.File(path, "r") as file:
            offsets = {name: file[name].id.get_offset() for name in names}
            written = file["checksums"][:].any(axis=1)
            fingerprint = str(file["data"].attrs["fingerprint"])
            made_from = MadeFrom.of(file["made_from"][:]) if "made_from" in file else None
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: exists and is no packed file ({error}); it is not written over") from error
    return Places(offsets=offsets, written=written, fingerprint=fingerprint, made_from=made_from)


def checksums(path: Path) -> NDArray[np.uint8]:
    """Those of all trajectories, (N, 16)."""
    with h5py.File(path, "r") as file:
        found: NDArray[np.uint8] = file["checksums"][:]
    return found


def put(file: BinaryIO, offset: int, values: NDArray[Any]) -> None:
    """Write values in place."""
    file.seek(offset)
    file.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


def put_statistics(path: Path, found: Moments) -> None:
    """Write the statistics of the channels."""
    offsets = places(path).offsets
    values = dict(zip(STATISTICS, (found.mean, found.std, found.low, found.high), strict=True))
    with path.open("r+b") as file:
        for name, value in values.items():
            put(file, offsets[f"statistics/{name}"], value.astype("<f8"))


def digest(record: Any) -> str:
    """Tells records apart: of what was asked for, and of what the data said of themselves."""
    return blake2b(json.dumps(record, sort_keys=True, default=str).encode(), digest_size=DIGEST).hexdigest()


def compress(source: Path, target: Path) -> None:
    """Copy a packed file with each frame compressed by gzip, for disks that are smaller than fast."""
    with h5py.File(source, "r") as old, h5py.File(target, "w") as new:
        data = old["data"]
        options = {"chunks": (1, 1, *data.shape[2:]), "compression": "gzip", "shuffle": True}
        copy = new.create_dataset("data", data.shape, data.dtype, **options)
        copy.attrs.update(data.attrs)
        lengths = old["lengths"][:].tolist() if "lengths" in old else [data.shape[1]] * len(data)
        for number, length in enumerate(lengths):
            for frame in range(length):
                copy[number, frame] = data[number, frame]
        for name in set(old) - {"data"}:
            old.copy(name, new)
