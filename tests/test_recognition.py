"""What `opframe data info PATH` prints of any layout is a table that can be trained on as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from data_support import Command, command
from layout_support import LAYOUTS, numbers
from opframe.data.contents import gather
from opframe.data.info import recognise
from opframe.data.selection import load_selection
from opframe_registry import Catalog
from support import ROOT, waves, write_prepared

__all__ = ["command"]


def sphere(folder: Path) -> Path:
    for split in ("train", "test"):
        path = folder / split / "seed=1" / "run1" / "output.nc"
        path.parent.mkdir(parents=True)
        with h5py.File(path, "w") as file:
            for name in ("u", "v", "div", "vor"):
                file[name] = numbers(5, 1, 4, 6)
            file["pres"], file["time"] = numbers(5, 4, 6), np.arange(5.0)
    return folder


def case_folders(folder: Path) -> Path:
    for number in range(10):
        case = folder / "cavity" / "prop" / f"case{number:04}"
        case.mkdir(parents=True)
        for name in "uv":
            np.save(case / f"{name}.npy", numbers(6, 4, 5))
        (case / "case.json").write_text('{"density": 1.5}')
    return folder / "cavity"


def mat_file(folder: Path) -> Path:
    savemat(folder / "ns_V1e-5.mat", {"a": numbers(20, 8, 8), "u": numbers(20, 8, 8, 5), "t": np.arange(1.0, 6)})
    return folder / "ns_V1e-5.mat"


def numpy_file(folder: Path) -> Path:
    np.save(folder / "own.npy", numbers(20, 5, 8, 8))
    return folder / "own.npy"


def zarr_group(folder: Path) -> Path:
    zarr = pytest.importorskip("zarr")
    zarr.open_group(str(folder / "own.zarr"), mode="w").create_array("u", data=numbers(20, 5, 8, 8))
    return folder / "own.zarr"


def single_file(folder: Path) -> Path:
    return write_prepared(folder / "data.h5", waves(20, 5, 8))


def folder_of_files(folder: Path) -> Path:
    for index in range(20):
        write_prepared(folder / "set" / f"data_{index}.hdf5", waves(1, 5, 8)[0])
    return folder / "set"


def three_dimensions(folder: Path) -> Path:
    return write_prepared(folder / "data.h5", np.stack([waves(4, 5, 8)] * 8, axis=3))


def unknown(folder: Path) -> Path:
    with h5py.File(folder / "mine.h5", "w") as file:
        file["results/velocity"] = numbers(3, 5, 8, 8)
    return folder / "mine.h5"


MADE = (
    sphere, case_folders, mat_file, numpy_file, zarr_group, single_file, folder_of_files, three_dimensions, unknown
)  # fmt: skip
PUBLISHED = [
    *sorted((LAYOUTS / "pdebench").glob("*5")),
    *sorted((LAYOUTS / "fno").glob("*.mat")),
    *sorted((LAYOUTS / "pdearena").glob("*.h5")),
    LAYOUTS / "pdearena",
    LAYOUTS / "the_well" / "ns_kolmogorov_uv",
    *sorted((LAYOUTS / "the_well").rglob("*.hdf5")),
    *sorted((ROOT / "configs" / "samples").glob("*.h5")),
]


def snippets(printed: str) -> list[str]:
    """The tables that were printed, each up to an empty line."""
    tables = printed.split("[[datasets]]")[1:]
    return ["[[datasets]]" + table.partition("\n\n")[0].replace("\n  ", "\n") for table in tables]


def assert_can_be_trained_on(where: Path, folder: Path, command: Command, catalog: Catalog) -> None:
    done = command("data", "info", where)
    assert done.returncode == 0, done.stderr
    assert "cannot be opened" not in done.stdout
    found = snippets(done.stdout)
    assert found
    for snippet in found:
        (folder / "pasted.toml").write_text(snippet)
        [dataset] = load_selection(folder / "pasted.toml", catalog).datasets
        train, test = (dataset.build(split, folder) for split in ("train", "test"))
        assert train.metadata.frames == test.metadata.frames > 1
        assert train.metadata.channels == test.metadata.channels
        for part in (train, test):
            assert np.isfinite(part.read(part.metadata.trajectories - 1, 0, 2)).all()


@pytest.mark.parametrize("where", PUBLISHED, ids=lambda path: str(path.name))
def test_what_is_printed_of_a_published_layout_can_be_trained_on(
    where: Path, tmp_path: Path, command: Command, catalog: Catalog
) -> None:
    assert_can_be_trained_on(where, tmp_path, command, catalog)


@pytest.mark.parametrize("make", MADE, ids=lambda make: str(make.__name__))
def test_what_is_printed_of_any_layout_can_be_trained_on(
    make: Callable[[Path], Path], tmp_path: Path, command: Command, catalog: Catalog
) -> None:
    assert_can_be_trained_on(make(tmp_path), tmp_path, command, catalog)


@pytest.mark.parametrize("make", [mat_file, numpy_file, zarr_group, single_file, folder_of_files])
def test_a_tenth_of_a_single_file_is_kept_for_the_test(
    make: Callable[[Path], Path], tmp_path: Path, catalog: Catalog
) -> None:
    where = str(make(tmp_path))
    [found] = recognise(where, gather(where), catalog)
    assert found.settings["test"] == 2
    assert found.component.build("train", tmp_path).metadata.trajectories == 18


def test_files_for_each_split_are_taken_as_they_are(tmp_path: Path, catalog: Catalog) -> None:
    for split in ("train", "test"):
        write_prepared(tmp_path / f"{split}.h5", waves(4, 5, 8))
    [found] = recognise(str(tmp_path), gather(str(tmp_path)), catalog)
    assert found.settings == {"url": f"{tmp_path}/{{split}}.h5"}
