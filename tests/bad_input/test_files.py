"""Files that cannot be used: each is answered by words that say which file, what is wrong and what would be right."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from bad_files_support import (
    HDF5,
    NUMPY,
    OPENED,
    READ,
    WINDOWS,
    A,
    Case,
    F,
    Make,
    X,
    chunked,
    chunks_become,
    complain,
    data,
    folder_of,
    half,
    hdf5,
    matlab,
    named,
    nothing,
    raw,
    saved,
    zarr_array,
    zarr_group,
)  # fmt: skip

NPY, H5 = saved(A), data(X)
FNO = {"u": X[..., 0], "a": X[..., 0, 0], "t": np.arange(1.0, 9.0)}
MAT = matlab(FNO)
NULL = h5py.Empty("f4")
OBJECTS = np.array([{"a": 1}, None], dtype=object)
NOT_A_NUMBER = np.where(np.arange(A.size).reshape(A.shape) % 1024 == 77, np.nan, A)


def npy(name: str, content: bytes, expected: str, commands: tuple[str, ...] = OPENED, **keys: object) -> Case:
    return Case(f"npy-{name}", raw("own.npy", content), {**NUMPY, **keys}, f"own.npy: {expected}", commands)


def h5(name: str, content: bytes, expected: str, commands: tuple[str, ...] = OPENED, **keys: object) -> Case:
    return Case(f"hdf5-{name}", raw("own.h5", content), {**HDF5, **keys}, expected, commands)


def mat(name: str, content: bytes, expected: str, commands: tuple[str, ...] = OPENED, **keys: object) -> Case:
    return Case(f"matlab-{name}", raw("own.mat", content), {"type": "fno_mat", "test": 2, **keys}, expected, commands)


def zarred(name: str, make: Make, expected: str, commands: tuple[str, ...] = OPENED, **keys: object) -> Case:
    return Case(f"zarr-{name}", make, {**NUMPY, **keys}, f"own.zarr: {expected}", commands)


BAD_NPY = "cannot be read as a NumPy file; truncated or not NumPy? "
BAD_H5 = "own.h5: cannot be read as HDF5; truncated or not HDF5? "
BAD_MAT = "own.mat: cannot be read as a MATLAB file; truncated or not MATLAB? "
REAL = "expected real numbers"
TOO_SHORT = "but a window takes 5 (4 of history and 1 to predict); lower data.history, objective.frames"
BY_PATH = "the key 'path' says which one is read"

CASES = [
    Case("npy-absent", nothing("none.npy"), NUMPY, "none.npy: no such file", OPENED[1:]),
    npy("empty", b"", f"{BAD_NPY}(EOF"),
    npy("truncated", half(NPY), "shorter than its header says; truncated?"),
    npy("header-truncated", NPY[:40], f"{BAD_NPY}(EOF: reading array header"),
    npy("header-missing", NPY[:6], f"{BAD_NPY}(EOF: reading magic string"),
    npy("text", b"some words, but no numbers" * 9, f"{BAD_NPY}(the magic string is not correct"),
    npy("other-format", H5, f"{BAD_NPY}(the magic string is not correct"),
    npy("broken-header", NPY.replace(b"'descr'", b"'descry"), BAD_NPY),
    npy("objects", saved(OBJECTS), f"{BAD_NPY}(holds Python objects, which are not read)"),
    npy("complex", saved(A + 1j), f"the array holds complex64, {REAL}"),
    npy("text-array", saved(np.full(A.shape, "a")), f"the array holds <U1, {REAL}"),
    npy("dates", saved(np.zeros(A.shape, "M8[s]")), f"the array holds datetime64[s], {REAL}"),
    npy("records", saved(np.zeros(A.shape, [("a", "f4")])), f"the array holds [('a', '<f4')], {REAL}"),
    npy("scalar", saved(3.0), "the array has shape (), but axes = 'n t x y c' names 5 axes"),
    npy("too-few-axes", saved(F), "the array has shape (6, 8, 16, 16), but axes = 'n t x y c' names 5 axes"),
    npy("axis-not-one", NPY, "the array has shape (6, 8, 16, 16, 1), in which the axis that", axes="n 1 t x y"),
    npy("with-path", NPY, f"has no array 'u'; found: one array, to be read without a path; {BY_PATH}", path="u"),
    Case("npy-folder", nothing("own.npy", is_folder=True), NUMPY, "own.npy: is a folder, expected a file"),
    Case(
        "npy-no-points",
        raw("a.npy", saved(A[:, :, :0])),
        NUMPY,
        "array: there is nothing in its trajectories, which have no grid points",
    ),
    Case(
        "npy-no-channels",
        raw("a.npy", saved(A[..., :0])),
        NUMPY,
        "which have no channels (frames: 8, channels: 0, grid: 16x16)",
    ),
    Case("npy-no-frames", raw("a.npy", saved(A[:, :0])), NUMPY, "which have no frames"),
    Case("npy-no-trajectories", raw("a.npy", saved(A[:0])), NUMPY, "a.npy holds"),
    Case("npy-too-few-trajectories", raw("a.npy", saved(A[:2])), {**NUMPY, "test": 3}, "a.npy holds 2 trajectories"),
    Case("npy-one-frame", raw("a.npy", saved(A[:, :1])), NUMPY, f"trajectories have 1 frame, {TOO_SHORT}", WINDOWS),
    Case(
        "npy-too-few-frames", raw("a.npy", saved(A[:, :4])), NUMPY, f"trajectories have 4 frames, {TOO_SHORT}", WINDOWS
    ),
    Case("npy-not-finite", raw("a.npy", saved(NOT_A_NUMBER)), NUMPY, "nan in frame", READ),
    Case("npy-none-matches", lambda folder: folder / "*.npy", NUMPY, "nothing matches"),
    Case("npy-words-without-ending", raw("own", b"some words"), NUMPY, f"own: {BAD_NPY}"),
    Case("npy-folder-without-path", nothing("own", is_folder=True), NUMPY, "own: is a folder, expected a file"),
    Case(
        "npy-below-a-file",
        lambda folder: raw("a", b"x")(folder) / "b.npy",
        NUMPY,
        "part of the path is a file",
        OPENED[1:],
    ),
    h5("empty", b"", BAD_H5),
    h5("truncated", half(H5), f"{BAD_H5}(Unable to synchronously open file (truncated file"),
    h5("text", b"some words" * 99, BAD_H5),
    h5("other-format", NPY, BAD_H5),
    h5("without-data", named(u=X), "has no dataset 'data'; found: u; this layout has 'data' alone, type = \"array\""),
    h5("with-nothing", named(), "own.h5: has no dataset 'data'; found: nothing"),
    h5("group", named(data__u=X), "own.h5: 'data' is a group, not a dataset; did you mean 'data/u'?; found: data/u"),
    h5("link-to-nothing", hdf5(lambda file: file.__setitem__("data", h5py.SoftLink("/none"))), "has no dataset 'data'"),
    h5(
        "link-outside",
        hdf5(lambda file: file.__setitem__("data", h5py.ExternalLink("none.h5", "/data"))),
        "has no dataset 'data'",
    ),
    h5("complex", data(X + 1j), f"own.h5: 'data' holds complex64, {REAL}"),
    h5("text-array", data(["a", "b"]), f"own.h5: 'data' holds other objects than numbers, {REAL}"),
    h5(
        "ragged",
        hdf5(lambda file: file.create_dataset("data", (3, 4, 4, 9), h5py.vlen_dtype("f4"))),
        f"'data' holds other objects than numbers, {REAL}",
    ),
    h5("records", data(np.zeros(X.shape, [("a", "f4")])), f"'data' holds [('a', '<f4')], {REAL}"),
    h5("without-shape", data(NULL), "own.h5: 'data' is an empty dataset without a shape"),
    h5("scalar", data(3.0), "'data' has shape (); expected (N, *grid, T, C) with 2 space axes"),
    h5(
        "too-few-axes",
        data(X[0, ..., 0, 0]),
        "'data' has shape (16, 16); expected (N, *grid, T, C) with 2 space axes; set 'dimensions'",
    ),
    h5("too-many-axes", data(X[..., None]), "'data' has shape (6, 16, 16, 8, 1, 1); expected"),
    h5("no-points", data(X[:, :0]), "there is nothing in its trajectories, which have no grid points"),
    h5("no-trajectories", data(X[:0]), "own.h5 holds"),
    h5("too-few-frames", data(X[..., :3, :]), f"trajectories have 3 frames, {TOO_SHORT}", WINDOWS),
    h5("wrong-axes", data(X, axes="n q x y c"), "its axes are 'n q x y c'; expected a letter for each"),
    h5("channels-no-names", data(X, channels=3), "says of 'data' that its channels are"),
    h5("channels-too-many", data(X, channels=["a", "b"]), "2 channels named ('a', 'b'), but"),
    h5("step-no-number", data(X, time_step="x"), "its time_step is 'x'; expected a number"),
    h5("spacing-no-numbers", data(X, spacing=[1.0]), "expected 2 numbers"),
    h5(
        "parameter-no-number",
        named(data=X, parameters__nu=["x"]),
        f"'parameters/nu' holds other objects than numbers, {REAL}",
    ),
    h5("channels-named-too-many", H5, "2 channels named ('a', 'b'), but", channels=["a", "b"]),
    h5("predicted-unknown", H5, "predicted channel 'x' is not among ('c0',)", predicted=["x"]),
    h5(
        "chunks-damaged",
        chunked(slice(5000, 8000), compression="gzip"),
        "cannot be read; truncated or damaged? (Can't synchronously read data",
        READ,
    ),
    h5(
        "checksum-wrong",
        chunked(slice(-9000, -8000), fletcher32=True),
        "own.h5: trajectory 4 cannot be read; truncated or damaged?",
        READ,
    ),
    h5("not-finite", data(np.moveaxis(NOT_A_NUMBER, 1, 3)), "nan in frame", READ),
    h5(
        "array-unnamed",
        H5,
        f"own.h5: holds datasets by name, and none is named; found: data; {BY_PATH}",
        type="array",
        axes="n x y t c",
    ),
    h5(
        "array-misnamed",
        H5,
        f"own.h5: has no dataset 'dat'; did you mean 'data'?; found: data; {BY_PATH}",
        type="array",
        axes="n x y t c",
        path="dat",
    ),
    h5(
        "array-group",
        named(data__u=X),
        f"'data' is a group, not a dataset; did you mean 'data/u'?; found: data/u; {BY_PATH}",
        type="array",
        axes="n x y t c",
        path="data",
    ),
    h5(
        "array-too-many-axes",
        H5,
        "'data' has shape (6, 16, 16, 8, 1), but axes = 'n x y t' names 4 axes",
        type="array",
        axes="n x y t",
        path="data",
    ),
    Case("hdf5-absent", nothing("none.h5"), HDF5, "none.h5: no such file", OPENED[1:]),
    Case("hdf5-folder", nothing("own.h5", is_folder=True), HDF5, "own.h5: is a folder, expected a file"),
    Case("hdf5-empty-folder", nothing("set", is_folder=True), HDF5, "set holds no files data_{i}.hdf5"),
    Case("hdf5-file-for-folder", raw("set", b"some words"), HDF5, "set: is a file, expected a folder"),
    Case(
        "hdf5-one-of-many-damaged",
        folder_of(*[data(X[0])] * 5, b"bad"),
        HDF5,
        "data_5.hdf5: cannot be read as HDF5",
        READ,
    ),
    Case(
        "hdf5-one-of-many-other",
        folder_of(*[data(X[0])] * 5, data(X[0, :8])),
        HDF5,
        "data_5.hdf5: 'data' has shape (8, 16, 8, 1), expected (16, 16, 8, 1)",
        READ,
    ),
    Case(
        "hdf5-one-of-many-without",
        folder_of(*[data(X[0])] * 5, named()),
        HDF5,
        "data_5.hdf5: has no dataset 'data'",
        READ,
    ),
    mat("empty", b"", BAD_MAT),
    mat("truncated", half(MAT), f"{BAD_MAT}(its last element ends at"),
    mat("header-truncated", MAT[:60], BAD_MAT),
    mat("text", b"some words" * 99, BAD_MAT),
    mat("damaged", MAT[:2000] + bytes(50) + MAT[2050:], BAD_MAT, READ),
    mat(
        "matrices-alone",
        matlab({"u": np.zeros((3, 4))}, format="4", do_compression=False),
        "own.mat: found u (3, 4); expected u (N, X, Y, T)",
    ),
    mat("without-field", matlab({"v": X[..., 0]}), "own.mat: has no array 'u'; found: v (6, 16, 16, 8)"),
    mat("with-nothing", matlab({}), "own.mat: has no array 'u'; found: nothing"),
    mat("cell", matlab({"u": np.array([[1, "a"]], dtype=object)}), "has no array 'u'; found: nothing"),
    mat("complex", matlab({**FNO, "u": FNO["u"] + 1j}), f"own.mat: 'u' holds complex64, {REAL}", READ),
    mat(
        "too-few-axes",
        matlab({"u": X[0, ..., 0]}),
        "found u (16, 16, 8); expected u (N, X, Y, T) and a (N, X, Y), and T times in t",
    ),
    mat("other-axes", matlab({**FNO, "a": FNO["a"][:, :8]}), "expected u (N, X, Y, T) and a (N, X, Y)"),
    mat("one-frame", matlab({**FNO, "u": X[..., :1, 0]}), f"trajectories have 1 frame, {TOO_SHORT}", WINDOWS),
    mat("without-initial", matlab({"u": X[..., 0]}), "initial = true, but there is no array 'a'", initial=True),
    mat(
        "array-unnamed",
        MAT,
        f"own.mat: holds arrays by name, and none is named; found: u, a, t; {BY_PATH}",
        type="array",
        axes="n x y t",
    ),
    mat(
        "array-misnamed",
        MAT,
        f"own.mat: has no array 'w'; found: u, a, t; {BY_PATH}",
        type="array",
        axes="n x y t",
        path="w",
    ),
    mat("prepared", matlab({"data": X}), "own.mat: is a file, expected a folder", type="prepared"),
    Case(
        "matlab-folder",
        nothing("own.mat", is_folder=True),
        {"type": "fno_mat", "test": 2},
        "own.mat: is a folder, expected a file",
    ),
    mat("new-format-truncated", half(bytes(512) + named(u=X)), "own.mat: cannot be read"),
    mat("new-format-without-field", named(v=X), "own.mat: has no array 'u'; found: v"),
    mat(
        "new-format-times-no-numbers",
        named(u=F.T, a=F[:, 0].T, t=["x"]),
        f"'t' holds other objects than numbers, {REAL}",
    ),
    zarred("empty-folder", nothing("own.zarr", is_folder=True), "no Zarr array or group is there"),
    zarred("file", raw("own.zarr", b"some words"), "no Zarr array or group is there"),
    zarred(
        "no-json",
        zarr_array(A, lambda folder: (folder / "zarr.json").write_text("no JSON")),
        "cannot be read as Zarr; damaged?",
    ),
    zarred(
        "other-json",
        zarr_array(A, lambda folder: (folder / "zarr.json").write_text("[]")),
        "cannot be read as Zarr; damaged?",
    ),
    zarred(
        "unknown-version",
        zarr_array(A, lambda folder: (folder / "zarr.json").write_text('{"zarr_format": 9}')),
        "cannot be read as Zarr; damaged? (Invalid zarr_format",
    ),
    zarred("complex", zarr_array(A + 1j), f"the array holds complex64, {REAL}"),
    zarred("too-few-axes", zarr_array(F), "the array has shape (6, 8, 16, 16), but axes"),
    zarred(
        "with-path",
        zarr_array(A),
        f"has no array 'u'; found: one array, to be read without a path; {BY_PATH}",
        path="u",
    ),
    zarred("unnamed", zarr_group(u=A), f"holds arrays by name, and none is named; found: u; {BY_PATH}"),
    zarred("misnamed", zarr_group(u=A), f"has no array 'w'; found: u; {BY_PATH}", path="w"),
    zarred("with-nothing", zarr_group(), "has no array 'u'; found: nothing", path="u"),
    zarred(
        "chunks-truncated",
        zarr_array(A, chunks_become(b"(\xb5/\xfd"), compressors=zarr.codecs.ZstdCodec()),
        "trajectory",
        READ,
    ),
    zarred("chunks-empty", zarr_array(A, chunks_become(b"")), "trajectory", READ),
    zarred("chunks-short", zarr_array(A, chunks_become(b"1234"), compressors=None), "trajectory", READ),
    Case("zarr-absent", nothing("none.zarr"), NUMPY, "none.zarr: no Zarr array or group is there", OPENED[1:]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_a_bad_file_is_named_by_every_command_with_what_is_wrong(case: Case, tmp_path: Path) -> None:
    complain(case, tmp_path)
