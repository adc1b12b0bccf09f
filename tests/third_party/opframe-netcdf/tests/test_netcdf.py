"""Files of a made-up basin, read back."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from opframe_netcdf import NetCDF
from opframe_netcdf.basin import drifted, flow, island, trajectory, write_basin
from opframe_netcdf.files import OPEN_FILES

from opframe_registry import Boundary, DataError, Location, Trajectories

COUNTS: Mapping[str, int] = {"train": 5, "validation": 2, "test": 2}


@pytest.fixture(scope="module")
def basin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_basin(tmp_path_factory.mktemp("basin"), COUNTS)


def dataset(basin: Path, **settings: Any) -> NetCDF:
    return NetCDF(url=Location(f"{basin}/{{split}}"), parameters=("diffusivity",), boundary="periodic", **settings)


def opened(basin: Path) -> Trajectories:
    return dataset(basin).build("train", basin)


def test_the_tracer_is_kept_and_stays_out_of_the_island() -> None:
    land = island()
    sea = (~land).astype(float)
    velocity = flow(land, np.random.default_rng(0))
    begin = np.random.default_rng(1).random(land.shape) * sea
    end = drifted(begin, velocity, sea, 1e-3, 0.05)
    np.testing.assert_allclose(end.sum(), begin.sum(), rtol=1e-12)
    assert (end[land] == 0).all()
    assert np.abs(end - begin).max() > 0.01
    flat = drifted(sea, velocity, sea, 1e-3, 0.05)  # nothing is heaped up: the flow has no divergence
    np.testing.assert_allclose(flat, sea, atol=1e-12)


def test_metadata_say_what_the_files_hold(basin: Path) -> None:
    metadata = opened(basin).metadata
    lengths = tuple(trajectory(0, number).sizes["time"] for number in range(5))
    assert len(set(lengths)) > 1
    assert (metadata.trajectories, metadata.frames, metadata.lengths) == (5, max(lengths), lengths)
    assert metadata.channels == metadata.predicted == ("tracer",)
    assert metadata.units == ("kg m-3",)
    assert metadata.boundary == ((Boundary.PERIODIC, Boundary.PERIODIC),) * 2
    assert metadata.time_step == pytest.approx(0.05)
    assert metadata.spacing == pytest.approx((1 / 16, 1 / 16))
    assert metadata.missing is not None
    assert isnan(metadata.missing)
    diffusivity = metadata.parameters["diffusivity"]
    assert [isnan(value) for value in diffusivity] == [False, False, True, False, False]
    assert diffusivity[1] == pytest.approx(trajectory(0, 1).attrs["diffusivity"])


def test_a_window_is_what_was_written_with_nan_on_land(basin: Path) -> None:
    read = opened(basin).read(3, 2, 7)
    assert read.dtype == np.float32
    assert read.shape == (5, 1, 16, 16)
    np.testing.assert_array_equal(read[:, 0], trajectory(0, 3)["tracer"][2:7].to_numpy())
    assert (np.isnan(read) == island()).all()


def test_a_copy_reads_the_same_and_takes_no_open_file_with_it(basin: Path) -> None:
    trajectories = opened(basin)
    first = trajectories.read(0, 0, 4)
    copy = pickle.loads(pickle.dumps(trajectories))
    assert vars(copy)["_open"] == {}
    np.testing.assert_array_equal(copy.read(0, 0, 4), first)


def test_no_more_files_stay_open_than_said(tmp_path: Path) -> None:
    trajectories = opened(write_basin(tmp_path, {"train": OPEN_FILES + 3}))
    for number in range(OPEN_FILES + 3):
        trajectories.read(number, 0, 1)
    assert len(vars(trajectories)["_open"]) == OPEN_FILES


def test_there_is_a_validation_split_where_there_is_its_folder(basin: Path, tmp_path: Path) -> None:
    assert dataset(basin).splits() == ("train", "validation", "test")
    assert dataset(basin, validation=0).splits() == ("train", "test")
    assert dataset(write_basin(tmp_path, {"train": 1, "test": 1})).splits() == ("train", "test")
    assert dataset(basin, validation=1).build("validation", basin).metadata.trajectories == 1


def test_what_is_wrong_is_said_with_its_file(basin: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split"):
        NetCDF(url=Location("folder"))
    with pytest.raises(DataError, match=r"no NetCDF file .* in .*train"):
        dataset(tmp_path).build("train", tmp_path)
    with pytest.raises(DataError, match=r"train = 9, but .* holds 5 files"):
        dataset(basin, train=9).build("train", basin)
    with pytest.raises(DataError, match=r"000\.nc: has no variable 'salt'"):
        dataset(basin, variables=("salt",)).build("train", basin)
    with pytest.raises(DataError, match=r"000\.nc: frames 0 to 99"):
        opened(basin).read(0, 0, 99)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "0.nc").write_bytes(b"no file of this format")
    with pytest.raises(DataError, match=r"0\.nc: is no NetCDF file"):
        dataset(tmp_path).build("train", tmp_path)


def test_files_that_do_not_agree_are_refused(basin: Path, tmp_path: Path) -> None:
    write_basin(tmp_path, {"train": 1})
    xarray.Dataset({"tracer": (("time", "x", "y"), np.zeros((12, 8, 8), "f4"))}).to_netcdf(
        tmp_path / "train" / "9.nc", engine="h5netcdf"
    )
    with pytest.raises(DataError, match=r"9\.nc: its grid \(8, 8\) differs from \(16, 16\)"):
        dataset(tmp_path).build("train", tmp_path)
