"""Datasets that are solved once, on first use, and kept in the cache in the prepared layout."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Protocol

import attrs
import h5py
import numpy as np
import torch
from torch import Tensor

from opframe.console import bytes_in_words
from opframe.files.limits import free_disk, free_memory
from opframe.files.once import made_once
from opframe.files.stamps import stamps
from opframe.readers.arrays import ArrayTrajectories, Part, Variable
from opframe_registry import DataError, Dataset, Metadata, Progress, Split
from opframe_registry.metadata import axes_in_words


class Solver(Protocol):
    """Solves many trajectories at a time. Tensors are float64 or float32, on the device given to it."""

    def initial(self, generator: torch.Generator) -> Tensor:
        """Draw the state of one trajectory at its beginning, shape (S, X, Y), with S state variables."""
        ...

    def frames(self, initial: Tensor) -> Iterator[Tensor]:
        """Yield what is stored of each frame, (n, C, X, Y), from initial states (n, S, X, Y)."""
        ...


def solved_path(component: Dataset, split: Split, count: int, cache: Path) -> Path:
    """Where a split is kept. The name carries a digest of everything that changes the numbers of a trajectory.

    Which trajectories and frames are used changes none: those of a longer file begin with those of a shorter one.
    """
    known = component.identity(stamps)
    changing = [known.numbers, known.revision, *([known.files] if known.files else [])]
    digest = hashlib.sha256(json.dumps(changing, sort_keys=True).encode()).hexdigest()[:10]
    return cache / f"{component.name}-{digest}" / f"{split}-{count}.h5"


def solving_device() -> torch.device:
    """Where datasets are solved: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepare_solved(
    component: Dataset,
    solver: Solver,
    metadata: Callable[[Split], Metadata],
    cache: Path,
    progress: Progress,
    together: int,
) -> None:
    """Solve both splits, `together` trajectories at a time, unless they are in the cache already.

    Trajectory i begins from a generator seeded by (split, i), so that it is the same however many are solved.
    A file appears under its name only when it is complete. Raises DataError if the solution is not finite, and before
    anything is solved if there is no room for it.
    """
    splits: tuple[Split, Split] = ("train", "test")
    missing = [
        own
        for split, own in ((split, metadata(split)) for split in splits)
        if not solved_path(component, split, own.trajectories, cache).exists()
    ]
    _check_room(component, missing, cache, together)
    for split in splits:
        _prepare_split(component, solver, metadata(split), split, cache, progress, together)


def _check_room(component: Dataset, missing: Sequence[Metadata], cache: Path, together: int) -> None:
    """Raises DataError unless there is room for the splits on disk, and in memory for what is solved at a time."""
    for own in missing:
        trajectory = 4 * own.frames * len(own.channels) * prod(own.grid)
        count, at_once = sum(each.trajectories for each in missing), min(together, own.trajectories)
        disk, memory = free_disk(cache), free_memory()
        described = f"of {own.frames} frames on {'×'.join(map(str, own.grid))}"
        if count * trajectory > disk:
            raise DataError(
                f"{component.title}: {count} trajectories {described} take {bytes_in_words(count * trajectory)} on "
                f"disk, and {bytes_in_words(disk)} are free at {cache}; {disk // trajectory} would fit, train and test "
                "together"
            )
        if memory is not None and at_once * trajectory > memory:
            raise DataError(
                f"{component.title}: {at_once} trajectories {described} are solved together, which takes at least "
                f"{bytes_in_words(at_once * trajectory)} of memory, and {bytes_in_words(memory)} are free; lower its "
                "resolution"
            )


def _prepare_split(
    component: Dataset, solver: Solver, metadata: Metadata, split: Split, cache: Path, progress: Progress, together: int
) -> None:
    path = solved_path(component, split, metadata.trajectories, cache)
    if path.exists():
        return
    partial = path.with_suffix(".partial")
    try:
        with made_once(path):
            if path.exists():  # another process has made it meanwhile
                return
            try:
                with h5py.File(partial, "w") as file:
                    _solve_into(file, component, solver, metadata, split, progress, together)
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}); set data.cache to a folder with room") from error


def _solve_into(
    file: h5py.File,
    component: Dataset,
    solver: Solver,
    metadata: Metadata,
    split: Split,
    progress: Progress,
    together: int,
) -> None:
    count, frames = metadata.trajectories, metadata.frames
    shape = (count, *metadata.grid, frames, len(metadata.channels))
    data = file.create_dataset("data", shape, dtype="f4")
    for key, value in _attributes(metadata).items():
        data.attrs[key] = value
    for first in range(0, count, together):
        members = range(first, min(first + together, count))
        initial = torch.stack([solver.initial(_generator(split, member)) for member in members])
        # Frames are gathered in memory: writing them one by one would touch every page of the file T times.
        block = np.empty((len(members), *shape[1:]), dtype=np.float32)
        for frame, values in enumerate(solver.frames(initial)):
            if not torch.isfinite(values).all():
                raise DataError(f"{component.title}: the solution became infinite in frame {frame} ({split})")
            block[..., frame, :] = torch.movedim(values, 1, -1).cpu().numpy()
            progress(f"{component.title} ({split})", first * frames + (frame + 1) * len(members), count * frames)
        data[first : first + len(members)] = block


def _attributes(metadata: Metadata) -> dict[str, object]:
    """What a reader of the file wants to know, as HDF5 attributes."""
    record = attrs.asdict(metadata, filter=lambda attribute, value: value not in (None, (), {}))
    record["boundary"] = axes_in_words(metadata.boundary)
    for key in ("trajectories", "frames", "grid", "parameters", "vectors", "conserved"):
        record.pop(key, None)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in record.items()}


def _generator(split: Split, member: int) -> torch.Generator:
    address = np.random.SeedSequence([0 if split == "train" else 1, member])
    return torch.Generator().manual_seed(int(address.generate_state(1, np.uint64)[0] >> np.uint64(1)))


def open_solved(component: Dataset, metadata: Metadata, split: Split, cache: Path) -> ArrayTrajectories:
    """Open a split that `prepare_solved` made. Raises DataError if it is not there."""
    path = solved_path(component, split, metadata.trajectories, cache)
    if not path.exists():
        raise DataError(f"{component.title}: {path} has not been prepared yet; 'opframe run' prepares it")
    return ArrayTrajectories(
        metadata=metadata,
        parts=[Part(url=str(path), count=metadata.trajectories)],
        variables=[Variable(path="data", axes="nxytc", channels=len(metadata.channels))],
    )
