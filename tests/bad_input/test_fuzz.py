"""Whatever a file or a config is: every command succeeds, or says in words what is wrong and ends with 2."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bad_files_support import config, data, files, hdf5, matlab, named, saved, well
from bad_input_worker import Worker
from support import EXPERIMENT, waves, write_prepared

X = waves(4, 6, 8)  # N X Y T C
A = np.ascontiguousarray(np.moveaxis(X, 3, 1))  # N T X Y C
F = A[..., 0]
FNO = {"u": X[..., 0], "a": X[..., 0, 0], "t": np.arange(1.0, 7.0)}
ARRAY = {"type": "array", "axes": "n t x y c", "test": 1}
PREPARED = {"type": "prepared", "test": 1}
NOISE = np.random.default_rng(0).normal(size=(4, 60, 60, 6))  # too much for MATLAB files to be read where they are

Stored = tuple[str, bytes, Mapping[str, Any]]
"""The name of a file, its content, and the table that reads it."""


def chunked(**options: object) -> bytes:
    return hdf5(lambda file: file.create_dataset("data", data=X, chunks=(1, 8, 8, 3, 1), **options))


HDF5: list[Stored] = [
    ("own.h5", data(X, channels=["u"], time_step=0.1, axes="n x y t c"), PREPARED),
    ("own.h5", chunked(compression="gzip"), PREPARED),
    ("own.h5", chunked(fletcher32=True, shuffle=True), PREPARED),
    ("own.h5", named(Vx=F, Vy=F, density=F, pressure=F), {"type": "pdebench", "test": 1}),
    ("own.h5", well(F), {"type": "the_well", "test": 1}),
]
NUMPY: list[Stored] = [("own.npy", saved(A), ARRAY), ("own.npy", saved(np.asfortranarray(A)), ARRAY)]
MATLAB: list[Stored] = [
    ("own.mat", matlab(FNO), {"type": "fno_mat", "test": 1}),
    ("own.mat", matlab(FNO, do_compression=False), {"type": "fno_mat", "test": 1}),
    ("own.mat", matlab({"u": NOISE}), {"type": "fno_mat", "test": 1}),
]
COMMANDS = ("data info", "path", "data check", "data pack", "check")


TIMES = pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.fuzz)])
"""The whole of it, ten thousand inputs, is `pytest -m fuzz`."""


def bounded(examples: int) -> settings:
    """So many examples, the same ones every time: what damaged files do to HDF5 is not ours to find out by chance."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("worker"))
    yield worker
    worker.close()


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with some of it changed, most often near the beginning, where headers are."""
    result = bytearray(content)
    near = st.integers(0, min(len(content), 1024) - 1) | st.integers(0, len(content) - 1)
    for _ in range(draw(st.integers(1, 6))):
        place = min(draw(near), max(len(result) - 1, 0))
        match draw(st.sampled_from(["flip", "flip", "byte", "bytes", "copy", "cut", "remove"])):
            case "flip":
                result[place : place + 1] = bytes([result[place] ^ 1 << draw(st.integers(0, 7))] if result else [])
            case "byte":
                result[place : place + 1] = bytes([draw(st.sampled_from([0, 1, 127, 255]))])
            case "bytes":
                result[place : place + 8] = draw(st.binary(min_size=1, max_size=8))
            case "copy":
                other = min(draw(near), max(len(result) - 1, 0))
                result[place : place + 16] = result[other : other + 16]
            case "cut":
                del result[place:]
            case "remove":
                del result[place : place + draw(st.integers(1, 16))]
    return bytes(result)


def assert_answered(worker: Worker, command: str, where: Path, table: Mapping[str, Any]) -> None:
    """The command succeeds or ends with 2 and words, and leaves whole files alone.

    HDF5 itself may die of what is damaged, which a command has no means against.
    """
    folder = where.parent
    words = ["data", "info", str(where)] if command == "path" else [*command.split(), str(config(folder, where, table))]
    words += {"data pack": [str(folder / "packed")], "data check": ["--jobs", "1"]}.get(command, [])
    before = files(folder)
    answer = worker.ask(*words)
    if answer.code is None:
        assert "most recent call first" in answer.printed, answer.printed
        assert "/h5py/" in answer.printed.partition('File "')[2].partition('"')[0], answer.printed
        return
    assert answer.code in (0, 2), answer.printed
    assert "Traceback" not in answer.printed, answer.printed
    assert answer.code == 0 or len(answer.printed) > 20
    left = files(folder) - before
    assert all(path.startswith("packed/") and path.endswith(("train.h5", "test.h5")) for path in left), left


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def fuzz(worker: Worker, folder: Path, stored: Stored, command: str, change: Callable[[bytes], bytes]) -> None:
    name, content, table = stored
    where = emptied(folder) / name
    where.write_bytes(change(content))
    assert_answered(worker, command, where, table)


@TIMES
@pytest.mark.parametrize(("examples", "kinds"), [(500, HDF5), (250, NUMPY), (250, MATLAB)], ids=["hdf5", "npy", "mat"])
def test_damaged_files_are_answered_in_words(
    times: int, examples: int, kinds: list[Stored], worker: Worker, tmp_path: Path
) -> None:
    @bounded(examples * times)
    @given(st.data(), st.sampled_from(kinds), st.sampled_from(COMMANDS))
    def one(drawn: st.DataObject, stored: Stored, command: str) -> None:
        fuzz(worker, tmp_path / "one", stored, command, lambda content: drawn.draw(damaged(content)))

    one()


@pytest.fixture(scope="module")
def zarr_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("zarr") / "own.zarr"
    zarr.create_array(str(folder), data=A, chunks=(2, 6, 8, 8, 1))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@TIMES
def test_damaged_zarr_is_answered_in_words(
    times: int, worker: Worker, tmp_path: Path, zarr_files: dict[str, bytes]
) -> None:
    @bounded(250 * times)
    @given(st.data(), st.sampled_from(["zarr.json", "zarr.json", *sorted(zarr_files)]), st.sampled_from(COMMANDS))
    def one(drawn: st.DataObject, changed: str, command: str) -> None:
        where = emptied(tmp_path / "one") / "own.zarr"
        for name, content in zarr_files.items():
            (where / name).parent.mkdir(parents=True, exist_ok=True)
            (where / name).write_bytes(drawn.draw(damaged(content)) if name == changed else content)
        assert_answered(worker, command, where, ARRAY)

    one()


TYPES = ("f4", "f2", ">f8", "i8", "u1", "?", "c8", "U1", "S1", "M8[s]", "O", [("a", "f4")])
AXES = ("n t x y c", "n x y t c", "n t x y", "n t x", "t x", "n t x y z c", "n 1 t x")


@st.composite
def arrays(draw: st.DrawFn) -> Stored:
    """A file with an array of any shape and type, and a table that may or may not fit it."""
    shape = draw(st.lists(st.integers(0, 7), max_size=7))
    values = np.ones(shape, "f4").astype(draw(st.sampled_from(TYPES)))
    table = {"type": "array", "axes": draw(st.sampled_from(AXES)), "test": draw(st.integers(1, 3))}
    match draw(st.sampled_from(["npy", "h5", "mat", "prepared", "fno"])):
        case "npy":
            return "own.npy", saved(values), table
        case "h5" if values.dtype.kind in "fiu?cO":
            return "own.h5", data(values if values.dtype.kind != "O" else values.astype("S")), {**table, "path": "data"}
        case "prepared" if values.dtype.kind in "fiu?c":
            return "own.h5", data(values), {"type": "prepared", "test": 1, "dimensions": draw(st.integers(1, 3))}
        case kind:
            named = {"u": values.astype("f8") if values.dtype.kind in "MO" else values, "t": np.arange(3.0)}
            return "own.mat", matlab(named), {"type": "fno_mat", "test": 1} if kind == "fno" else {**table, "path": "u"}


@TIMES
def test_arrays_of_any_shape_and_type_are_answered_in_words(times: int, worker: Worker, tmp_path: Path) -> None:
    @bounded(350 * times)
    @given(arrays(), st.sampled_from(COMMANDS))
    def one(stored: Stored, command: str) -> None:
        fuzz(worker, tmp_path / "one", stored, command, lambda content: content)

    one()


VALUES: tuple[Any, ...] = (
    *(-1, 0, 1, 2, 3, 5, -1e30, 0.5, 1e30, float("nan"), float("inf"), True),
    *("", "text", "1", [], [1], [0], [[]], {}, {"a": 1}),
)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """A valid config in which some keys have other values or names, are gone, or come twice."""
    tables = tomllib.loads(EXPERIMENT)
    for _ in range(draw(st.integers(1, 3))):
        table = tables
        while True:
            key = draw(st.sampled_from(sorted(table)))
            inner = table[key][draw(st.integers(0, len(table[key]) - 1))] if _several(table[key]) else table[key]
            if not isinstance(inner, dict) or not inner or draw(st.integers(0, 4)) == 0:
                break
            table = inner
        match draw(st.sampled_from(["value", "value", "value", "name", "remove", "add"])):
            case "value":
                table[key] = draw(st.sampled_from(VALUES))
            case "name":
                table[draw(st.sampled_from([f"{key}s", key[:-1] or "x", "x"]))] = table.pop(key)
            case "remove":
                del table[key]
            case "add":
                table[draw(st.sampled_from(["x", "type", "size", "test", "weight"]))] = draw(st.sampled_from(VALUES))
        if not tables:
            break
    return tables


def _several(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


@TIMES
def test_configs_with_anything_in_them_are_answered_in_words(times: int, worker: Worker, tmp_path: Path) -> None:
    write_prepared(tmp_path / "one.h5", waves(6, 12, 16))
    write_prepared(tmp_path / "two.h5", waves(6, 10, 16, channels=2))

    @bounded(400 * times)
    @given(configs(), st.sampled_from(["check", "data info"]))
    def one(tables: dict[str, Any], command: str) -> None:
        path = tmp_path / "experiment.toml"
        path.write_text(tomli_w.dumps(tables))
        answer = worker.ask(*command.split(), str(path))
        assert answer.code in (0, 2), answer.printed
        assert "Traceback" not in answer.printed, answer.printed

    one()
