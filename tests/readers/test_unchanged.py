"""A local data file that changes while it is read is named; it neither ends the process nor gives other numbers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from opframe.readers.hdf5 import Hdf5Store
from opframe.readers.npy import NpyStore
from opframe_registry import DataError
from slow_support import Phase, start, wait_until_reached
from support import waves, write_prepared


def rewritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(bytes(8))
    os.utime(path, ns=(0, 1))


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.rename(path)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut off": (lambda path: os.truncate(path, 8192), "has 8192 bytes, and had"),
    "emptied": (lambda path: os.truncate(path, 0), "has 0 bytes, and had"),
    "written to": (rewritten, "has been replaced or written to since it was opened"),
    "replaced": (replaced, "has been replaced or written to since it was opened"),
    "removed": (Path.unlink, "is gone, while it is read"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["hdf5", "npy"])
def test_a_file_that_changes_while_it_is_read_is_named(tmp_path: Path, kind: str, change: str) -> None:
    if kind == "hdf5":
        path = write_prepared(tmp_path / "one.h5", waves(6, 12, 16))
        store: Hdf5Store | NpyStore = Hdf5Store(str(path))
        wanted = [("data", (slice(0, 1),))]
    else:
        path = tmp_path / "one.npy"
        np.save(path, waves(6, 12, 16))
        store, wanted = NpyStore(str(path), {}), [("", (slice(0, 1),))]
    before = np.array(store.read(wanted)[0])
    assert np.array_equal(store.read(wanted)[0], before)
    spoil, expected = CHANGES[change]
    spoil(path)
    with pytest.raises(DataError, match=expected):
        store.read(wanted)
    store.close()


def test_a_run_whose_data_are_cut_off_saves_and_names_the_file(experiment: Path) -> None:
    phase = Phase(slow="opframe.mixture.loading:Windows.batch", how="briefly", after=3, options=("data.workers=1",))
    process = start(experiment, phase)
    wait_until_reached(experiment, process)
    os.truncate(experiment.parent / "two.h5", 8192)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert "two.h5: has 8192 bytes, and had" in errors
    assert "the run is saved at step" in errors
    assert "Traceback" not in errors
