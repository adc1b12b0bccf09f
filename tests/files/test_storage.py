"""Files in the prepared layout, read window by window from anything fsspec opens."""

from __future__ import annotations

import pickle
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opframe_registry import Catalog, DataError, Dataset, Trajectories
from support import waves, write_prepared


def prepared(catalog: Catalog, split: str = "test", **keys: object) -> Trajectories:
    return catalog.get(Dataset, "prepared")(**keys).build(split, Path())


@pytest.mark.parametrize("options", [{}, {"chunks": (1, 8, 8, 5, 2), "compression": "gzip"}])
def test_any_window_equals_the_slice_of_the_whole(catalog: Catalog, tmp_path: Path, options: dict[str, object]) -> None:
    data = waves(4, 9, 8, channels=2)
    trajectories = prepared(catalog, url=str(write_prepared(tmp_path / "data.h5", data, **options)))

    @settings(max_examples=30)
    @given(st.integers(0, 3), st.integers(0, 8), st.integers(1, 9))
    def check(trajectory: int, start: int, length: int) -> None:
        stop = min(start + length, 9)
        expected = np.moveaxis(data[trajectory], (2, 3), (0, 1))[start:stop]
        assert np.array_equal(trajectories.read(trajectory, start, stop), expected)

    check()


def test_one_file_for_each_trajectory_is_read_in_the_order_of_its_numbers(catalog: Catalog, tmp_path: Path) -> None:
    data = waves(12, 6, 4)
    for index in range(12):
        write_prepared(tmp_path / "set" / "train" / f"data_{index}.hdf5", data[index, ..., 0])
    trajectories = prepared(catalog, "train", url=str(tmp_path / "set" / "{split}"))
    assert trajectories.metadata.trajectories == 12
    assert np.array_equal(trajectories.read(10, 2, 4)[:, 0], np.moveaxis(data[10, ..., 2:4, 0], -1, 0))


def test_a_single_file_is_cut_into_training_and_test_without_overlap(catalog: Catalog, tmp_path: Path) -> None:
    url = str(write_prepared(tmp_path / "data.h5", waves(6, 5, 4)))
    train, test = (prepared(catalog, split, url=url, test=2) for split in ("train", "test"))
    assert (train.metadata.trajectories, test.metadata.trajectories) == (4, 2)
    whole = prepared(catalog, url=url)
    assert np.array_equal(test.read(0, 0, 5), whole.read(4, 0, 5))
    with pytest.raises(DataError, match=r"train = 5 and test = 2 overlap"):
        prepared(catalog, "train", url=url, train=5, test=2)
    with pytest.raises(DataError, match="set 'test'"):
        prepared(catalog, "train", url=url)


def test_remote_files_are_read_through_fsspec(catalog: Catalog, tmp_path: Path) -> None:
    data = waves(2, 5, 4)
    local = write_prepared(tmp_path / "data.h5", data)
    with fsspec.open("memory://bucket/data.h5", "wb") as file:
        file.write(local.read_bytes())
    trajectories = prepared(catalog, url="memory://bucket/data.h5")
    assert np.array_equal(trajectories.read(1, 1, 3)[:, 0], np.moveaxis(data[1, ..., 1:3, 0], -1, 0))


def test_trajectories_travel_to_another_process_without_their_open_files(catalog: Catalog, tmp_path: Path) -> None:
    url = str(write_prepared(tmp_path / "data.h5", waves(2, 5, 4), chunks=True))
    trajectories = prepared(catalog, url=url)
    before = trajectories.read(1, 0, 5)
    assert np.array_equal(pickle.loads(pickle.dumps(trajectories)).read(1, 0, 5), before)


def test_the_number_of_open_files_is_bounded(catalog: Catalog, tmp_path: Path) -> None:
    for index in range(70):
        write_prepared(tmp_path / "set" / f"data_{index}.hdf5", waves(1, 3, 4)[0], chunks=True)
    trajectories = prepared(catalog, url=str(tmp_path / "set"))
    for index in range(70):
        trajectories.read(index, 0, 1)
    descriptors = [path for path in Path("/proc/self/fd").iterdir() if "data_" in str(path.resolve())]
    assert len(descriptors) <= 64


def test_names_stored_with_the_data_are_used_and_checked(catalog: Catalog, tmp_path: Path) -> None:
    path = write_prepared(tmp_path / "data.h5", waves(1, 3, 4, channels=2))
    with h5py.File(path, "a") as file:
        file["data"].attrs["channels"] = ["density", "mask"]
        file["data"].attrs["predicted"] = ["density"]
    metadata = prepared(catalog, url=str(path)).metadata
    assert (metadata.channels, metadata.predicted) == (("density", "mask"), ("density",))
    with pytest.raises(DataError, match=r"'densty' is not among .*did you mean 'density'"):
        prepared(catalog, url=str(path), predicted=("densty",))
    with pytest.raises(DataError, match="1 channel named"):
        prepared(catalog, url=str(path), channels=("density",))


def test_damaged_and_missing_files_are_named(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.h5: no such file"):
        prepared(catalog, url=str(tmp_path / "none.h5"))
    whole = write_prepared(tmp_path / "whole.h5", waves(4, 9, 16)).read_bytes()
    (tmp_path / "short.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"short\.h5: .*truncated"):
        prepared(catalog, url=str(tmp_path / "short.h5")).read(3, 0, 9)
    (tmp_path / "text.h5").write_text("not HDF5 at all")
    with pytest.raises(DataError, match=r"text\.h5: cannot be read as HDF5"):
        prepared(catalog, url=str(tmp_path / "text.h5"))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["u"] = np.zeros(3)
    with pytest.raises(DataError, match=r"other\.h5: has no dataset 'data'; found: u"):
        prepared(catalog, url=str(tmp_path / "other.h5"))


def test_wrong_shapes_are_named_with_what_was_expected(catalog: Catalog, tmp_path: Path) -> None:
    url = str(write_prepared(tmp_path / "flat.h5", np.zeros((5, 8), "f4")))
    with pytest.raises(DataError, match=r"flat\.h5: 'data' has shape \(5, 8\); expected \(N, \*grid, T, C\)"):
        prepared(catalog, url=url)
    write_prepared(tmp_path / "set" / "data_0.hdf5", np.zeros((4, 4, 3, 1), "f4"))
    write_prepared(tmp_path / "set" / "data_1.hdf5", np.zeros((4, 5, 2, 1), "f4"))
    with pytest.raises(DataError, match=r"data_1\.hdf5: 'data' has shape \(4, 5, 2, 1\), expected \(4, 4, 2, 1\)"):
        prepared(catalog, url=str(tmp_path / "set")).read(1, 0, 1)
