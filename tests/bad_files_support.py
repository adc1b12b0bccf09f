"""Pieces of the tests of files that cannot be used: how they are made, and the commands that must say so."""

from __future__ import annotations

import contextlib
import gc
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tomli_w
import zarr
from attrs import field, frozen
from scipy.io import savemat

from opframe.cli.main import main
from support import EXPERIMENT, waves

X = waves(6, 8, 16)  # N X Y T C, as the prepared layout has it
A = np.ascontiguousarray(np.moveaxis(X, 3, 1))  # N T X Y C
F = A[..., 0]

OPENED = ("check", "data info", "data check", "data pack", "data bench", "run")
"""The commands that say what is wrong with a file as it is opened."""
READ = ("data check", "data pack", "run")
"""Those that say what is wrong with its numbers."""
WINDOWS = ("check", "data bench", "run")
"""Those that need whole training windows."""
NUMPY = {"type": "array", "axes": "n t x y c", "test": 2}
HDF5 = {"type": "prepared", "test": 2}

Make = Callable[[Path], Path]


@frozen
class Case:
    """A file, the table of a config that reads it, what is said of it, and by which commands."""

    name: str
    make: Make
    table: Mapping[str, Any]
    expected: str
    commands: tuple[str, ...] = field(default=OPENED)


def call(*words: str) -> tuple[object, str]:
    """The exit code of a command and what it printed, on one line."""
    printed = io.StringIO()
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        main(words)
    return ended.value.code, " ".join(printed.getvalue().split())


def config(folder: Path, where: Path | str, table: Mapping[str, Any]) -> Path:
    """An experiment on one dataset."""
    begin, end = EXPERIMENT.split("[[datasets]]")[0], EXPERIMENT.partition("[sampler]")[2]
    text = tomli_w.dumps({**table, "url": str(where)})
    path = folder / "experiment.toml"
    path.write_text(f"{begin}[sampler]{end}\n[[datasets]]\n{text}".replace("steps = 8", "steps = 2"))
    return path


def files(folder: Path) -> set[str]:
    """What lies in a folder, by relative paths."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# How the files are made


def raw(name: str, content: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def nothing(name: str, is_folder: bool = False) -> Make:
    def make(folder: Path) -> Path:
        if is_folder:
            (folder / name).mkdir()
        return folder / name

    return make


def saved(values: object) -> bytes:
    content = io.BytesIO()
    np.save(content, np.asarray(values), allow_pickle=True)
    return content.getvalue()


def hdf5(write: Callable[[h5py.File], object]) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        write(file)
    return content.getvalue()


def data(values: object, **attributes: object) -> bytes:
    """A file with `data`."""

    def write(file: h5py.File) -> None:
        file["data"] = values
        file["data"].attrs.update(attributes)

    return hdf5(write)


def named(**arrays: object) -> bytes:
    """A file with several datasets; `__` in a name stands for `/`."""
    return hdf5(lambda file: [file.create_dataset(name.replace("__", "/"), data=it) for name, it in arrays.items()])


def chunked(damage: slice, **options: object) -> bytes:
    """A file whose chunks are damaged."""
    content = bytearray(hdf5(lambda file: file.create_dataset("data", data=X, chunks=(1, 16, 16, 8, 1), **options)))
    place = range(*damage.indices(len(content)))
    content[damage] = bytes(len(place))
    return bytes(content)


def matlab(arrays: Mapping[str, object], **options: Any) -> bytes:
    content = io.BytesIO()
    savemat(content, dict(arrays), **{"do_compression": True, **options})
    return content.getvalue()


def zarr_array(values: Any, change: Callable[[Path], object] = lambda folder: None, **options: Any) -> Make:
    def make(folder: Path) -> Path:
        zarr.create_array(str(folder / "own.zarr"), data=values, **options)
        change(folder / "own.zarr")
        return folder / "own.zarr"

    return make


def zarr_group(**arrays: Any) -> Make:
    def make(folder: Path) -> Path:
        group = zarr.open_group(str(folder / "own.zarr"), mode="w")
        for name, values in arrays.items():
            group.create_array(name, data=values)
        return folder / "own.zarr"

    return make


def chunks_become(content: bytes) -> Callable[[Path], object]:
    return lambda folder: [path.write_bytes(content) for path in folder.glob("c/**/*") if path.is_file()]


def folder_of(*contents: bytes) -> Make:
    """A folder of data_{i}.hdf5."""

    def make(folder: Path) -> Path:
        (folder / "set").mkdir()
        for number, content in enumerate(contents):
            (folder / "set" / f"data_{number}.hdf5").write_bytes(content)
        return folder / "set"

    return make


def cases(u: bytes | None = None, v: bytes | None = None, about: bytes | None = b'{"density": 1.5}') -> Make:
    """The case folders of CFDBench's cavity, with u.npy, v.npy and case.json."""

    def make(folder: Path) -> Path:
        good = saved(F[0])
        for number in range(10):
            case = folder / "cavity" / "prop" / f"case{number:04}"
            case.mkdir(parents=True)
            (case / "u.npy").write_bytes(good if u is None else u)
            if v != b"absent":
                (case / "v.npy").write_bytes(good if v is None else v)
            if about is not None:
                (case / "case.json").write_bytes(about)
        return folder / "cavity"

    return make


def smoke(write: Callable[[str], Mapping[str, object]]) -> Make:
    """The folder of PDEArena's files for training and testing."""

    def make(folder: Path) -> Path:
        for split in ("train", "test"):
            (folder / f"NavierStokes2D_{split}_1.h5").write_bytes(
                named(**{f"{split}__{name}": values for name, values in write(split).items()})
            )
        return folder

    return make


def well(values: object, names: object = ("u",), dims: object = ("x", "y")) -> bytes:
    """A file of The Well with one scalar field."""

    def write(file: h5py.File) -> None:
        file.create_group("dimensions").attrs["spatial_dims"] = dims
        file.create_group("t0_fields").attrs["field_names"] = names
        if values is not None:
            file["t0_fields/u"] = values

    return hdf5(write)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def complain(case: Case, folder: Path) -> None:
    """Every command of a case says what is expected, ends with 2, and leaves nothing half done."""
    gc.collect()  # or zarr's thread may, and wait for a lock that h5py takes wherever one of its objects goes
    where = case.make(folder)
    experiment = config(folder, where, case.table)
    before = files(folder)
    for command in case.commands:
        with contextlib.chdir(folder):  # where what is known of the data is kept
            code, printed = call(*command.split(), str(experiment), *arguments_of(command, folder))
        assert case.expected in printed, f"{command}: {printed}"
        assert (code, "Traceback" in printed) == (2, False), command
        left = {path for path in files(folder) - before if not path.startswith(("run/", "data/"))}
        assert left <= {"packed/array/train.h5", "packed/prepared/train.h5"}, command  # only whole files


def arguments_of(command: str, folder: Path) -> list[str]:
    """What a command is given beside the config."""
    return {"data pack": [str(folder / "packed")], "data check": ["--jobs", "1"], "data bench": ["--samples", "2"]}.get(
        command, []
    )
