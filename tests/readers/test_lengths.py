"""Files, groups and padded arrays of trajectories of different lengths are read to the end of each, and no further."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from layout_support import numbers, opened
from opframe.files import location
from opframe.readers.stores import Stores
from opframe_registry import Catalog, ConfigError, DataError, Dataset, Trajectories
from support import write_padded

LENGTHS = (3, 5, 2, 5)
RUNS = [numbers(length, 2, 4, 6) + 1000 * number for number, length in enumerate(LENGTHS)]


def assert_ragged(trajectories: Trajectories, runs: Sequence[NDArray[np.float32]]) -> None:
    """All windows are those of the runs (T, C, X, Y); what lies beyond the end of one is refused, with its length."""
    metadata = trajectories.metadata
    assert [metadata.length(number) for number in range(metadata.trajectories)] == [len(run) for run in runs]
    for number, run in enumerate(runs):
        for start in range(len(run)):
            for stop in range(start + 1, len(run) + 1):
                assert np.array_equal(trajectories.read(number, start, stop), run[start:stop])
        if metadata.lengths:
            beyond = rf"trajectory {number}, frames 0\.\.{len(run) + 1} asked for, but it has {len(run)}"
            with pytest.raises(DataError, match=beyond):
                trajectories.read(number, 0, len(run) + 1)
    again = pickle.loads(pickle.dumps(trajectories))
    assert np.array_equal(again.read(len(runs) - 1, 0, len(runs[-1])), runs[-1])


def grouped(path: Path, first: int = 0, gap: int = 0) -> Path:
    """Runs in groups of one HDF5 file, numbered from `first` on, the last one after a gap."""
    with h5py.File(path, "w") as file:
        for number, run in enumerate(RUNS):
            file[f"run_{first + number + gap * (number == len(RUNS) - 1):04d}/u"] = run
        file["run_mean/u"] = RUNS[0]
        file["notes"] = np.zeros(3)
    return path


def test_each_file_of_a_trajectory_has_a_length_of_its_own(catalog: Catalog, tmp_path: Path) -> None:
    for number, run in enumerate(RUNS):
        np.save(tmp_path / f"run{number}.npy", run)
    url = tmp_path / "run*.npy"
    assert_ragged(opened(catalog, "array", url, axes="t c x y"), RUNS)
    assert_ragged(opened(catalog, "array", url, "train", axes="t c x y", test=1), RUNS[:3])
    assert_ragged(opened(catalog, "array", url, axes="t c x y", test=2), RUNS[2:])
    for number, run in enumerate(RUNS):
        zarr.create_array(str(tmp_path / f"run{number}.zarr"), data=run)  # folders, whose own sizes say nothing
    assert_ragged(opened(catalog, "array", tmp_path / "run*.zarr", axes="t c x y"), RUNS)
    fsspec.filesystem("memory").put(str(tmp_path), "memory://ragged", recursive=True)
    assert_ragged(opened(catalog, "array", "memory://ragged/run*.npy", axes="t c x y"), RUNS)


def test_each_file_of_many_trajectories_has_a_length_of_its_own(catalog: Catalog, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.stack([RUNS[0], RUNS[1][:3]]))
    np.save(tmp_path / "b.npy", np.stack([RUNS[3]]))
    runs = [RUNS[0], RUNS[1][:3], RUNS[3]]
    assert_ragged(opened(catalog, "array", tmp_path / "*.npy", axes="n t c x y"), runs)
    assert_ragged(opened(catalog, "array", tmp_path / "*.npy", "train", axes="n t c x y", test=1), runs[:2])


def test_arrays_of_one_file_that_are_numbered_are_one_trajectory_each(catalog: Catalog, tmp_path: Path) -> None:
    keys = {"axes": "t c x y", "path": "run_{n:04d}/u"}
    assert_ragged(opened(catalog, "array", grouped(tmp_path / "a.h5"), **keys), RUNS)
    assert_ragged(opened(catalog, "array", grouped(tmp_path / "b.h5", first=9, gap=5), **keys), RUNS)
    assert_ragged(opened(catalog, "array", tmp_path / "b.h5", test=2, **keys), RUNS[2:])
    assert_ragged(opened(catalog, "array", tmp_path / "*.h5", **keys), [*RUNS, *RUNS])
    group = zarr.open_group(tmp_path / "c.zarr", mode="w")
    (tmp_path / "folder").mkdir()
    for number, run in enumerate(RUNS):
        group.create_array(f"runs/{number}", data=run, chunks=(1, *run.shape[1:]))
        np.save(tmp_path / "folder" / f"u{{{number}}}.npy", run)
    assert_ragged(opened(catalog, "array", tmp_path / "c.zarr", axes="t c x y", path="runs/{n}"), RUNS)
    assert_ragged(opened(catalog, "array", tmp_path / "folder", axes="t c x y", path="u{{n}}.npy"), RUNS)


def test_padded_arrays_are_read_to_the_lengths_that_lie_beside_them(catalog: Catalog, tmp_path: Path) -> None:
    padded = np.stack([np.pad(run, [(0, 6 - len(run)), *[(0, 0)] * 3], constant_values=np.nan) for run in RUNS])
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file["u"], file["frames"] = padded, np.array(LENGTHS)
    keys = {"axes": "n t c x y", "path": "u", "lengths": "frames"}
    assert_ragged(opened(catalog, "array", tmp_path / "own.h5", **keys), RUNS)
    assert_ragged(opened(catalog, "array", tmp_path / "own.h5", test=2, **keys), RUNS[2:])
    data = np.moveaxis(write_padded(tmp_path / "one.h5", LENGTHS, grid=4, channels=2), (3, 4), (1, 2))
    runs = [run[:length] for run, length in zip(data, LENGTHS, strict=True)]
    assert_ragged(opened(catalog, "prepared", tmp_path / "one.h5"), runs)
    assert_ragged(opened(catalog, "prepared", tmp_path / "one.h5", "train", test=3), runs[:1])


def test_each_file_of_a_prepared_folder_has_a_length_of_its_own(catalog: Catalog, tmp_path: Path) -> None:
    for number, run in enumerate(RUNS):
        with h5py.File(tmp_path / f"data_{number}.hdf5", "w") as file:
            file["data"] = np.moveaxis(run, (0, 1), (2, 3))
    assert_ragged(opened(catalog, "prepared", tmp_path), RUNS)
    with h5py.File(tmp_path / "data_4.hdf5", "w") as file:
        file["data"] = np.zeros((4, 6))
    with pytest.raises(DataError, match=r"data_4\.hdf5: 'data' has shape \(4, 6\), expected the axes x y t c of the"):
        opened(catalog, "prepared", tmp_path)


def test_of_files_of_one_size_only_the_first_is_opened(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        np.save(tmp_path / f"run{number}.npy", RUNS[1] + number)
    asked: list[str] = []
    array = Stores.array
    monkeypatch.setattr(Stores, "array", lambda self, url, path: asked.append(url[-8:]) or array(self, url, path))
    trajectories = opened(catalog, "array", tmp_path / "run*.npy", axes="t c x y")
    assert set(asked) == {"run0.npy"}
    assert_ragged(trajectories, [RUNS[1] + number for number in range(5)])
    np.save(tmp_path / "run3.npy", np.moveaxis(RUNS[1], 0, -1))  # of the same size all the same
    with pytest.raises(DataError, match=r"run3\.npy: '' has shape \(2, 4, 6, 5\), expected \(5, 2, 4, 6\)"):
        opened(catalog, "array", tmp_path / "run*.npy", axes="t c x y").read(3, 0, 1)


def test_a_listing_says_how_large_files_are(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RUNS[0])
    (tmp_path / "b.zarr").mkdir()
    files = location.file_sizes(str(tmp_path), "*")
    assert sorted(files) == sorted(location.find_files(str(tmp_path), "*"))
    assert list(files.values()) == [(tmp_path / "a.npy").stat().st_size, None]


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 5, 2], r"'frames' has shape \(3,\); expected how many frames each of 4 trajectories has, from 0 to 5"),
        ([3, 6, 2, 5], r"'frames' has numbers from 2 to 6; expected"),
        ([3, -1, 2, 5], r"'frames' has numbers from -1 to 5; expected"),
        ([3.5, 1, 2, 5], r"'frames' has numbers from 1 to 5; expected"),
        ([np.nan, 1, 2, 5], r"'frames' has numbers from nan to nan; expected"),
        (["3", "1", "2", "5"], r"'frames' holds .*, expected real numbers"),
    ],
)
def test_lengths_that_cannot_be_are_refused(
    catalog: Catalog, tmp_path: Path, lengths: list[object], message: str
) -> None:
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file["u"], file["frames"] = numbers(4, 5, 2, 4, 6), lengths
        file["data"], file["lengths"] = numbers(4, 4, 6, 5, 2), lengths
    with pytest.raises(DataError, match=message):
        opened(catalog, "array", tmp_path / "own.h5", axes="n t c x y", path="u", lengths="frames")
    with pytest.raises(DataError, match=message.replace("frames'", "lengths'")):
        opened(catalog, "prepared", tmp_path / "own.h5")


def test_settings_that_contradict_each_other_are_refused(catalog: Catalog, tmp_path: Path) -> None:
    array = catalog.get(Dataset, "array")
    with pytest.raises(ConfigError, match=r"path = 'r{n:02d}' is of one trajectory by its {n}, but axes = 'ntx' has n"):
        array(url="a.h5", axes="ntx", path="r{n:02d}")
    with pytest.raises(ConfigError, match=r"lengths = 'frames' is for arrays of many trajectories, but axes = 't x'"):
        array(url="a.h5", axes="t x", lengths="frames")
    with pytest.raises(DataError, match=r"a\.h5: has no array 'r{n}', whatever the number n; found: notes, run_0000/u"):
        opened(catalog, "array", grouped(tmp_path / "a.h5"), axes="t c x y", path="r{n}")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["run_0007/u"] = np.zeros(3)
    with pytest.raises(DataError, match=r"a\.h5: 'run_0007/u' has shape \(3,\), but axes = 't c x y' names 4 axes"):
        opened(catalog, "array", tmp_path / "a.h5", axes="t c x y", path="run_{n:04d}/u")
