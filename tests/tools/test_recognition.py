"""What `opframe data info PATH` prints of any layout is a table that can be trained on as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from data_support import Command, command
from layout_support import LAYOUTS, numbers
from opframe.readers.contents import gather
from opframe.tools.recognition import recognise
from opframe.tools.selection import load_selection
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
    found = recognise(where, gather(where), catalog)[0]
    assert found.settings["test"] == 2
    assert found.component.build("train", tmp_path).metadata.trajectories == 18


def test_files_for_each_split_are_taken_as_they_are(tmp_path: Path, catalog: Catalog) -> None:
    for split in ("train", "test"):
        write_prepared(tmp_path / f"{split}.h5", waves(4, 5, 8))
    [found] = recognise(str(tmp_path), gather(str(tmp_path)), catalog)
    assert found.settings == {"url": f"{tmp_path}/{{split}}.h5"}


def first_words(printed: str) -> list[str]:
    """What the numbered lines say, without the settings."""
    return [line.split("  ")[-1] for line in printed.splitlines() if line.strip()[:2] in ("1.", "2.", "3.", "4.")]


@pytest.mark.parametrize(
    ("shape", "axes", "readings"),
    [
        (
            (240, 37, 49),
            "t x y",
            ["1 trajectory of 240 frames on 37 x 49", "240 trajectories of 37 frames on 49 points"],
        ),
        (
            (12, 64, 64, 20, 1),
            "n x y t c",
            ["12 trajectories of 20 frames on 64 x 64", "12 trajectories of 64 frames on 64 x 20"],
        ),
        (
            (48, 20, 64, 64),
            "n t x y",
            ["48 trajectories of 20 frames on 64 x 64", "48 trajectories of 64 frames on 20 x 64"],
        ),
        ((30, 201, 512), "n t x", ["30 trajectories of 201 frames on 512 points"]),
    ],
)
def test_an_array_is_offered_in_the_readings_that_fit_and_the_person_is_asked(
    tmp_path: Path, command: Command, shape: tuple[int, ...], axes: str, readings: list[str]
) -> None:
    np.save(tmp_path / "own.npy", np.lib.stride_tricks.as_strided(np.zeros(1, "f4"), shape, (0,) * len(shape)))
    done = command("data", "info", tmp_path / "own.npy")
    assert done.returncode == 0
    assert "looks like" not in done.stdout
    assert "Which is right?" in done.stdout
    assert first_words(done.stdout)[: len(readings)] == [f"{words}, 1 channel" for words in readings]
    assert f'axes = "{axes}"' in snippets(done.stdout)[0]


def test_a_reading_of_another_layout_is_offered_before_one_that_is_unlikely(tmp_path: Path, command: Command) -> None:
    write_prepared(tmp_path / "turned.h5", numbers(10, 20, 3, 32, 32))
    printed = command("data", "info", tmp_path / "turned.h5").stdout
    assert first_words(printed) == [
        "10 trajectories of 20 frames on 32 x 32, 3 channels",
        "10 trajectories of 32 frames on 20 x 3 x 32, 1 channel",
    ]


def test_axes_that_a_file_states_itself_are_no_question(tmp_path: Path, command: Command) -> None:
    path = write_prepared(tmp_path / "stated.h5", numbers(10, 20, 3, 32, 32))
    with h5py.File(path, "r+") as file:
        file["data"].attrs["axes"] = "n t c x y"
    printed = command("data", "info", path).stdout
    assert "this looks like prepared" in printed
    assert "10 trajectories of 20 frames on 32 x 32, 3 channels" in printed
    assert "Which is right?" not in printed


def test_a_matlab_file_with_the_name_of_another_layout_is_not_taken_for_it(tmp_path: Path, command: Command) -> None:
    savemat(tmp_path / "own.mat", {"data": numbers(10, 20, 32, 32)})
    done = command("data", "info", tmp_path / "own.mat")
    assert done.returncode == 0
    assert "prepared" not in done.stdout
    assert "cannot be opened" not in done.stdout
    assert first_words(done.stdout)[0] == "10 trajectories of 20 frames on 32 x 32, 1 channel"


@pytest.mark.parametrize("values", [numbers(4, 5, 8, 8) + 1j, numbers(7), np.zeros((0, 5, 8, 8), "f4")])
def test_what_nothing_can_read_is_said_to_be_so(tmp_path: Path, command: Command, values: NDArray[Any]) -> None:
    np.save(tmp_path / "own.npy", values)
    done = command("data", "info", tmp_path / "own.npy")
    assert done.returncode == 2
    assert "no installed component reads this; what is there:" in done.stdout
    assert " x ".join(map(str, values.shape)) in done.stdout
    assert not snippets(done.stdout)


def test_a_damaged_file_of_a_known_layout_is_no_success(tmp_path: Path, command: Command) -> None:
    with h5py.File(tmp_path / "flow.h5", "w") as file:
        for name in ("Vx", "density", "pressure"):
            file[name] = numbers(4, 5, 8, 8)
    done = command("data", "info", tmp_path / "flow.h5")
    assert done.returncode == 2
    assert "cannot be opened as pdebench: " in done.stdout
    assert "has no 'Vy'" in done.stdout
