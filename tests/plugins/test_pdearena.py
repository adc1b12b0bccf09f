"""PDEArena's files are read as they are published, against the arrays as h5py gives them."""

from __future__ import annotations

from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from layout_support import LAYOUTS, assert_reads, numbers, opened, shapes
from opframe_registry import Catalog, DataError, Dataset
from opframe_registry.metadata import boundary_in_words

FILES = LAYOUTS / "pdearena"
TRAIN = FILES / "NavierStokes2D_train_42_0.50000_3.h5"
SMOKE = ("u", "vx", "vy")
SPHERE = ("u", "v", "div", "vor", "pres")


def stacked(path: Path, group: str) -> NDArray[np.float32]:
    with h5py.File(path) as file:
        return np.stack([file[group][name][...] for name in SMOKE], axis=2).astype("f4")


def write_smoke(
    folder: Path, split: str, name: str, count: int, frames: int = 3, buoyancy: tuple[float, ...] | None = None
) -> NDArray[np.float32]:
    """A file of the conditioned set; the values differ from file to file."""
    values = numbers(count, frames, 3, 4, 5) + sum(name.encode())
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f"NavierStokes2D_{split}_{name}.h5", "w") as file:
        group = file.create_group(split)
        for index, channel in enumerate(SMOKE):
            group[channel] = values[:, :, index].astype("f8")
        if buoyancy is not None:
            group["buo_y"] = np.array(buoyancy)
    return values


def write_run(path: Path, frames: int = 3, offset: float = 0.0) -> NDArray[np.float32]:
    """One run of the shallow-water model, as netCDF4 stores it."""
    values = numbers(frames, 5, 4, 6) + offset
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for index, name in enumerate(SPHERE):
            field = values[:, index] if name == "pres" else values[:, None, index]
            stored = file.create_dataset(name, data=field, chunks=(1, *field.shape[1:]), compression="gzip")
            stored.attrs["units"] = np.bytes_("hPa") if name == "pres" else np.bytes_("m/s")
        file["time"] = np.arange(frames) * 6.0
        file["lat"], file["lon"], file["lev"] = np.arange(4.0), np.arange(6.0), np.zeros(1)
    return values


def test_the_published_smoke_files_are_read_split_by_split(catalog: Catalog) -> None:
    assert_reads(opened(catalog, "pdearena", FILES, "train"), stacked(TRAIN, "train"))
    assert_reads(
        opened(catalog, "pdearena", FILES, "test"), stacked(FILES / "NavierStokes2D_test_42_0.50000.h5", "test")
    )


def test_smoke_files_say_what_they_are(catalog: Catalog) -> None:
    metadata = opened(catalog, "pdearena", FILES, "train").metadata
    assert metadata.channels == metadata.predicted == SMOKE
    assert (boundary_in_words(metadata.boundary), metadata.time_step) == ("wall", 6.0)
    assert metadata.vectors == (("vx", "vy"),)
    assert metadata.spacing == pytest.approx((0.50793651, 0.50793651))
    assert metadata.parameters == {"buoyancy": (0.5,)}
    assert "published as 'train'" in metadata.split
    assert "PDEArena" in metadata.source
    assert metadata.license


def test_trajectories_of_many_files_follow_each_other_with_their_own_buoyancy(catalog: Catalog, tmp_path: Path) -> None:
    one = write_smoke(tmp_path, "train", "1_0.3_2", 2, buoyancy=(0.3, 0.31))
    two = write_smoke(tmp_path, "train", "2_0.4_3", 3, buoyancy=(0.4, 0.41, 0.42))
    write_smoke(tmp_path, "valid", "1_0.2", 1, buoyancy=(0.2,))
    trajectories = opened(catalog, "pdearena", tmp_path, "train")
    assert_reads(trajectories, np.concatenate([one, two]))
    assert trajectories.metadata.parameters == {"buoyancy": (0.3, 0.31, 0.4, 0.41, 0.42)}


def test_fewer_trajectories_than_there_are_can_be_used(catalog: Catalog, tmp_path: Path) -> None:
    one = write_smoke(tmp_path, "train", "1_0.3_2", 2, buoyancy=(0.3, 0.31))
    two = write_smoke(tmp_path, "train", "2_0.4_3", 3, buoyancy=(0.4, 0.41, 0.42))
    trajectories = opened(catalog, "pdearena", tmp_path, "train", train=3)
    assert_reads(trajectories, np.concatenate([one, two[:1]]))
    assert trajectories.metadata.parameters == {"buoyancy": (0.3, 0.31, 0.4)}
    with pytest.raises(DataError, match=r"train = 6, but .* holds 5 trajectories"):
        opened(catalog, "pdearena", tmp_path, "train", train=6)


def test_the_published_validation_files_can_be_used_for_evaluation(catalog: Catalog, tmp_path: Path) -> None:
    expected = write_smoke(tmp_path, "valid", "7_0.5", 2)
    with pytest.raises(
        DataError, match=r"holds neither NavierStokes2D_test_\*\.h5 nor .*; found: NavierStokes2D_valid"
    ):
        opened(catalog, "pdearena", tmp_path)
    trajectories = opened(catalog, "pdearena", tmp_path, test_split="valid")
    assert_reads(trajectories, expected)
    assert trajectories.metadata.parameters == {"buoyancy": (0.5,)}  # by the file's name


def test_buoyancy_that_no_file_says_is_not_known(catalog: Catalog, tmp_path: Path) -> None:
    write_smoke(tmp_path, "test", "7", 2)
    assert opened(catalog, "pdearena", tmp_path).metadata.parameters == {}


def test_files_in_a_bucket_are_read(catalog: Catalog) -> None:
    with fsspec.open(f"memory://pda/{TRAIN.name}", "wb") as file:
        file.write(TRAIN.read_bytes())
    trajectories = opened(catalog, "pdearena", "memory://pda", "train")
    assert np.array_equal(trajectories.read(2, 3, 9), stacked(TRAIN, "train")[2, 3:9])


def test_shallow_water_runs_are_read_from_their_folders(catalog: Catalog, tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "train" / f"seed={seed}" / "run0001" / "output.nc", offset=1000.0 * seed)
        for seed in range(3)
    ]
    write_run(tmp_path / "test" / "seed=9" / "run0001" / "output.nc")
    trajectories = opened(catalog, "pdearena", tmp_path, "train")
    assert_reads(trajectories, np.stack(runs))
    metadata = trajectories.metadata
    assert metadata.channels == metadata.predicted == SPHERE
    assert (boundary_in_words(metadata.boundary), metadata.time_step) == ("x pole, y periodic", 6.0)
    assert metadata.vectors == (("v", "u"),)
    assert metadata.units == ("m/s", "m/s", "m/s", "m/s", "hPa")
    assert opened(catalog, "pdearena", tmp_path, "test").metadata.trajectories == 1


def test_a_run_of_another_length_is_named(catalog: Catalog, tmp_path: Path) -> None:
    write_run(tmp_path / "train" / "seed=1" / "output.nc", frames=3)
    write_run(tmp_path / "train" / "seed=2" / "output.nc", frames=4)
    with pytest.raises(DataError, match=r"seed=2/output\.nc: 'u' has shape \(4, 1, 4, 6\), expected \(3, 1, 4, 6\)"):
        opened(catalog, "pdearena", tmp_path, "train").read(1, 0, 1)


def test_wrong_smoke_files_are_named_with_what_they_hold(catalog: Catalog, tmp_path: Path) -> None:
    write_smoke(tmp_path, "train", "1", 2)
    path = tmp_path / "NavierStokes2D_train_1.h5"
    with h5py.File(path, "a") as file:
        del file["train/vy"]
        file["train/vy"] = np.zeros((1, 3, 4, 5))
    with pytest.raises(DataError, match=r"_1\.h5: expected u, vx, vy of one shape .*; found .*vy \(1, 3, 4, 5\)"):
        opened(catalog, "pdearena", tmp_path, "train")
    with h5py.File(path, "a") as file:
        file.move("train/vy", "train/velocity")
    with pytest.raises(DataError, match=r"_1\.h5: has no dataset 'train/vy'.*found: train/u"):
        opened(catalog, "pdearena", tmp_path, "train")


def test_a_file_of_another_length_is_named(catalog: Catalog, tmp_path: Path) -> None:
    write_smoke(tmp_path, "train", "1", 1, frames=3)
    write_smoke(tmp_path, "train", "2", 1, frames=4)
    with pytest.raises(DataError, match=r"train_2\.h5: 'train/u' has shape \(1, 4, 4, 5\), expected"):
        opened(catalog, "pdearena", tmp_path, "train").read(1, 0, 1)


def test_missing_buoyancies_of_a_file_are_an_error_that_counts_them(catalog: Catalog, tmp_path: Path) -> None:
    write_smoke(tmp_path, "train", "1", 3, buoyancy=(0.1, 0.2))
    with pytest.raises(DataError, match=r"train_1\.h5: 'train/buo_y' has 2 values for 3 trajectories"):
        opened(catalog, "pdearena", tmp_path, "train")


def test_the_layout_is_recognised(catalog: Catalog, tmp_path: Path) -> None:
    recognise = catalog.get(Dataset, "pdearena").recognise
    inside = shapes(TRAIN)
    assert recognise(str(TRAIN), inside) == {"url": str(FILES)}
    in_folder = {f"{TRAIN.name}:{path}": shape for path, shape in inside.items()}
    assert recognise(str(FILES), in_folder) == {"url": str(FILES)}
    run = tmp_path / "sw" / "train" / "seed=1" / "run1" / "output.nc"
    write_run(run)
    assert recognise(str(run), shapes(run)) == {"url": str(tmp_path / "sw")}
    assert recognise(str(tmp_path / "sw"), {"train/seed=1/run1/output.nc:pres": (3, 4, 6)}) is not None
    assert recognise("other.h5", {"data": (4, 8, 8, 5, 1)}) is None
    assert recognise("other.nc", {"u": (3, 4), "v": (3, 4)}) is None
