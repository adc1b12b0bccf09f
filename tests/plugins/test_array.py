"""Arrays of one's own, in any order of axes: NumPy, Zarr, HDF5, MATLAB."""

from __future__ import annotations

import multiprocessing
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import attrs
import fsspec
import h5py
import numpy as np
import pytest
import zarr
from scipy.io import savemat

from layout_support import assert_reads, numbers, opened
from opframe.config.structure import ProblemsError, make_converter
from opframe_registry import Catalog, ConfigError, DataError, Dataset, OpframeError, Trajectories
from opframe_registry.metadata import boundary_in_words

N, T, C, X, Y = 3, 4, 2, 5, 6
DATA = numbers(N, T, C, X, Y)


def in_order(axes: str) -> np.ndarray:
    """DATA with its axes in another order."""
    return np.einsum(f"ntcxy->{axes}", DATA)


def stored(folder: Path, kind: str, axes: str = "ntxyc") -> str:
    """DATA in a file of a kind, under the name u where it has names."""
    path, values = folder / f"own.{kind}", in_order(axes)
    if kind == "npy":
        np.save(path, values)
    elif kind == "zarr":
        group = zarr.open_group(path, mode="w")
        group.create_array("fields/u", data=values, chunks=(1, 2, *values.shape[2:]))
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            file["fields/u"] = values
    else:
        savemat(path, {"u": values})
    return str(path)


PATHS = {"npy": "", "zarr": "fields/u", "h5": "fields/u", "mat": "u"}


@pytest.mark.parametrize("kind", PATHS)
def test_files_of_every_kind_are_read(catalog: Catalog, tmp_path: Path, kind: str) -> None:
    trajectories = opened(catalog, "array", stored(tmp_path, kind), axes="n t x y c", path=PATHS[kind])
    assert_reads(trajectories, DATA)


@pytest.mark.parametrize("axes", ["".join(order) for order in permutations("ntcxy")][::7])
def test_axes_may_be_in_any_order(catalog: Catalog, tmp_path: Path, axes: str) -> None:
    assert_reads(opened(catalog, "array", stored(tmp_path, "npy", axes), axes=axes), DATA)


def test_axes_may_be_missing_or_of_length_one(catalog: Catalog, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", DATA[:, :, 0, None])
    assert_reads(opened(catalog, "array", tmp_path / "one.npy", axes="n, t, 1, x, y"), DATA[:, :, :1])
    np.save(tmp_path / "line.npy", DATA[0, :, 0, :, 0])
    assert_reads(opened(catalog, "array", tmp_path / "line.npy", axes="tx"), DATA[:1, :, :1, :, 0])
    np.save(tmp_path / "solid.npy", DATA)
    assert_reads(opened(catalog, "array", tmp_path / "solid.npy", axes="n t x y z"), DATA[:, :, None])


def test_many_files_are_taken_in_the_order_of_their_names(catalog: Catalog, tmp_path: Path) -> None:
    for split, members in (("train", (0, 1)), ("test", (2,))):
        (tmp_path / split).mkdir()
        for member in members:
            np.save(tmp_path / split / f"run{member}.npy", DATA[member])
    url = tmp_path / "{split}" / "run*.npy"
    assert_reads(opened(catalog, "array", url, "train", axes="t c x y"), DATA[:2])
    assert_reads(opened(catalog, "array", url, "test", axes="t c x y"), DATA[2:])
    with pytest.raises(DataError, match=r"array: nothing matches .*walk\*\.npy"):
        opened(catalog, "array", tmp_path / "walk*.npy", axes="t c x y")


def test_many_files_of_many_trajectories_follow_each_other(catalog: Catalog, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", DATA[:2])
    np.save(tmp_path / "b.npy", DATA[2:])
    assert_reads(opened(catalog, "array", tmp_path / "*.npy", axes="n t c x y"), DATA)
    assert_reads(opened(catalog, "array", tmp_path / "*.npy", "train", axes="n t c x y", test=1), DATA[:2])
    assert_reads(opened(catalog, "array", tmp_path / "*.npy", "test", axes="n t c x y", test=1), DATA[2:])


def test_what_the_settings_say_of_the_data_is_passed_on(catalog: Catalog, tmp_path: Path) -> None:
    keys = {
        "channels": ("density", "porosity"),
        "predicted": ("density",),
        "units": ("kg/m³", ""),
        "time_step": 0.5,
        "spacing": (0.1, 0.2),
        "vectors": (("density", "porosity"),),
        "missing": -999.0,
    }
    trajectories = opened(catalog, "array", stored(tmp_path, "npy"), axes="n t x y c", boundary="periodic", **keys)
    assert {key: getattr(trajectories.metadata, key) for key in keys} == keys
    assert boundary_in_words(trajectories.metadata.boundary) == "periodic"
    assert_reads(trajectories, DATA)


def test_numbers_of_the_equation_follow_the_trajectories_to_their_split(catalog: Catalog, tmp_path: Path) -> None:
    keys = {"axes": "n t x y c", "test": 1, "parameters": {"nu": tuple(range(len(DATA))), "k": 0.5}}
    sides = {"boundary": ("wall to open", "periodic")}
    for split, numbers_of in (("train", range(len(DATA) - 1)), ("test", [len(DATA) - 1])):
        metadata = opened(catalog, "array", stored(tmp_path, "npy"), split, **keys, **sides).metadata
        assert metadata.parameters == {"nu": tuple(numbers_of), "k": (0.5,)}
        assert boundary_in_words(metadata.boundary) == "x wall to open, y periodic"


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({"boundary": ("open", "slippery")}, "boundary: 'slippery' is no boundary that is known; known are"),
        ({"boundary": ("open",) * 3}, "boundary has 3 values, but there are 2 axes of space"),
        ({"parameters": {"nu": (1.0, 2.0)}}, "parameters.nu has 2 values, but there are 3 trajectories"),
        ({"vectors": (("c0", "c7"),)}, "vectors names 'c7', which is not among"),
    ],
)
def test_what_cannot_be_of_the_data_is_refused(
    catalog: Catalog, tmp_path: Path, keys: dict[str, Any], error: str
) -> None:
    with pytest.raises(OpframeError, match=error):
        opened(catalog, "array", stored(tmp_path, "npy"), axes="n t x y c", **keys)


def test_a_list_of_numbers_is_for_one_of_the_splits(catalog: Catalog) -> None:
    with pytest.raises(ConfigError, match=r"parameters.nu is a list, but training and test data lie apart"):
        opened(catalog, "array", "{split}.npy", axes="n t x y c", parameters={"nu": (1.0, 2.0)})


def test_what_only_describes_is_no_part_of_what_the_numbers_depend_on(catalog: Catalog) -> None:
    make = catalog.get(Dataset, "array")
    plain = make(url="a.npy", axes="n t x y c")
    said = make(url="a.npy", axes="n t x y c", parameters={"nu": 1.0}, vectors=(("a", "b"),), missing=0.0)
    assert plain.identity() == said.identity()
    assert {plain: 1}[attrs.evolve(plain)] == 1
    hash(said)


@pytest.mark.parametrize("kind", ["npy", "zarr"])
def test_arrays_in_a_bucket_are_read(catalog: Catalog, tmp_path: Path, kind: str) -> None:
    stored(tmp_path, kind)
    url = f"memory://own-arrays/own.{kind}"
    fsspec.filesystem("memory").put(str(tmp_path / f"own.{kind}"), url, recursive=kind == "zarr")
    assert_reads(opened(catalog, "array", url, axes="n t x y c", path=PATHS[kind]), DATA)


def _read_into(trajectories: Trajectories, results: multiprocessing.SimpleQueue[float]) -> None:
    results.put(float(trajectories.read(1, 0, T).sum()))


def test_zarr_is_read_in_a_forked_process_after_the_first(catalog: Catalog, tmp_path: Path) -> None:
    trajectories = opened(catalog, "array", stored(tmp_path, "zarr"), axes="n t x y c", path="fields/u")
    trajectories.read(0, 0, 1)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=_read_into, args=(trajectories, results))
    process.start()
    process.join(timeout=30)
    assert process.exitcode == 0
    assert results.get() == DATA[1].sum()


@pytest.mark.parametrize("kind", ["zarr", "h5"])
def test_an_array_that_is_not_there_is_named_with_those_that_are(catalog: Catalog, tmp_path: Path, kind: str) -> None:
    url = stored(tmp_path, kind)
    for path, words in (("fields/v", "has no .*'fields/v'"), ("", "none is named")):
        with pytest.raises(DataError, match=rf"own\.{kind}: .*{words}.*found: fields/u; the key 'path' says"):
            opened(catalog, "array", url, axes="n t x y c", path=path)


def test_an_array_without_a_path_in_zarr_is_read_without_one(catalog: Catalog, tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "own.zarr"), data=DATA)
    assert_reads(opened(catalog, "array", tmp_path / "own.zarr", axes="n t c x y"), DATA)
    with pytest.raises(DataError, match=r"has no array 'u'; found: one array, to be read without a path"):
        opened(catalog, "array", tmp_path / "own.zarr", axes="n t c x y", path="u")


def test_zarr_that_is_missing_or_broken_is_named(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / "zarr.json").write_text("not JSON")
    for name, message in (("none", "no Zarr array or group"), ("empty", "no Zarr array or group"), ("broken", "Zarr")):
        with pytest.raises(DataError, match=rf"{name}\.zarr: .*{message}"):
            opened(catalog, "array", tmp_path / f"{name}.zarr", axes="n t x")


def test_without_the_package_zarr_the_error_says_what_to_install(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = stored(tmp_path, "zarr")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(DataError, match=r'pip install "opframe\[zarr\]"'):
        opened(catalog, "array", url, axes="n t x y c", path="fields/u")


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("n t x y q", "'q' is no axis; axes are n trajectory, t time, c channel"),
        ("n t t x", "'t' is there 2 times, expected once"),
        ("n x y", "'t' is missing"),
        ("n t", "'x' is missing; space is x, x y or x y z"),
        ("n t y", "'x' is missing"),
        ("n t x z", "'y' is missing"),
    ],
)
def test_axes_that_cannot_be_are_named_before_anything_is_opened(catalog: Catalog, axes: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        catalog.get(Dataset, "array")(url="none.npy", axes=axes)


def test_axes_that_cannot_be_are_a_mistake_in_the_experiment(catalog: Catalog) -> None:
    table = {"type": "array", "url": "none.npy", "axes": "n t q"}
    with pytest.raises(ProblemsError) as caught:
        make_converter(catalog).structure(table, Dataset)
    assert ["'q' is no axis" in problem.message for problem in caught.value.problems] == [True]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"axes": "n t x y"}, r"own\.npy: the array has shape \(3, 4, 5, 6, 2\), but axes = 'n t x y' names 4 axes"),
        ({"axes": "n t x y 1"}, r"the axis that axes = 'n t x y 1' calls 1 has length 2"),
        ({"channels": ("a",)}, r"1 channel named \('a',\), but .*own\.npy holds 2"),
        ({"predicted": ("c2",)}, r"predicted channel 'c2' is not among \('c0', 'c1'\)"),
        ({"units": ("m",)}, r"units has 1 values, but there are 2 channels"),
        ({"spacing": (0.1,)}, r"spacing has 1 values, but there are 2 axes of space"),
    ],
)
def test_settings_that_do_not_fit_the_array_are_named(
    catalog: Catalog, tmp_path: Path, keys: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        opened(catalog, "array", stored(tmp_path, "npy"), **{"axes": "n t x y c", **keys})


def test_complex_numbers_are_not_read_as_real_ones(catalog: Catalog, tmp_path: Path) -> None:
    np.save(tmp_path / "waves.npy", DATA + 1j)
    with pytest.raises(DataError, match=r"waves\.npy: the array holds complex64, expected real numbers"):
        opened(catalog, "array", tmp_path / "waves.npy", axes="n t c x y")


def test_an_array_is_recognised_in_every_order_of_axes_that_fits(catalog: Catalog) -> None:
    recognise = catalog.get(Dataset, "array").recognise

    def axes(url: str, shape: tuple[int, ...]) -> list[str]:
        return [settings["axes"] for settings in recognise(url, {"": shape})]

    assert axes("a.npy", (9, 20, 64, 64, 2)) == ["n t x y c", "n x y t c", "n x y z t", "t x y z c", "x y z t c"]
    assert axes("a.npy", (9, 20, 2, 64, 64)) == ["n t c x y"]
    assert axes("a.npy", (9, 20, 64, 64)) == ["n t x y", "n x y t", "t x y z", "x y z t"]
    assert "y x t n" in axes("a.mat", (64, 64, 20, 9))
    assert axes("a.npy", (9,)) == []
    assert recognise("a.h5", {"x": (6400,), "u": (9, 16, 16)})[0] == {"url": "a.h5", "axes": "t x y", "path": "u"}


def test_files_of_a_folder_that_hold_arrays_of_one_shape_are_recognised_together(catalog: Catalog) -> None:
    recognise = catalog.get(Dataset, "array").recognise
    assert recognise("set", {"a.npy:": (20, 64, 64), "b.npy:": (20, 64, 64)})[0]["url"] == "set/*.npy"
    assert recognise("set", {"a/b.h5:u": (20, 64, 64), "a/c.h5:u": (20, 64, 64)})[0]["url"] == "set/a/*.h5"
    for others in ({"b.npy:": (20, 9)}, {"deep/b.npy:": (20, 64, 64)}, {"b.h5:u": (20, 64, 64)}):
        assert recognise("set", {"a.npy:": (20, 64, 64), **others})[0]["url"] == "set/a.npy"
