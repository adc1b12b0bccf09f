"""Every format is asked and read in the same way, from a disk and from afar."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from layout_support import numbers
from opframe.files.location import NoArrayError
from opframe.readers.stores import Stores

U = numbers(30, 8, 9, 10)
T = np.arange(8.0)[None]


def hdf5_file(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["u"], file["t"] = U, T
        file.create_dataset("packed", data=U, chunks=(1, 8, 9, 10), compression="gzip")


def numpy_folder(path: Path) -> None:
    path.mkdir()
    for name, values in (("u.npy", U), ("t.npy", T)):
        np.save(path / name, values)


def zarr_group(path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(path), mode="w")
    for name, values in (("u", U), ("t", T)):
        group.create_array(name, data=values)


def matlab_file(path: Path) -> None:
    savemat(path, {"u": U, "t": T}, do_compression=True)


FORMATS: dict[str, Callable[[Path], None]] = {
    "own.h5": hdf5_file, "own": numpy_folder, "own.zarr": zarr_group, "own.mat": matlab_file
}  # fmt: skip


def names(url: str, header: Any) -> tuple[str, list[str]]:
    return url, sorted(header)


@pytest.mark.parametrize("afar", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_headers_are_asked_and_windows_read_alike(tmp_path: Path, name: str, afar: bool) -> None:
    FORMATS[name](tmp_path / name)
    url = str(tmp_path / name)
    if afar:
        url = f"memory://stores/{name}"
        fsspec.filesystem("memory").put(str(tmp_path / name), f"/stores/{name}", recursive=True)
    suffix = ".npy" if name == "own" else ""
    u, t = f"u{suffix}", f"t{suffix}"
    stores = Stores()
    shapes = stores.store(url).shapes(10)
    assert {path: shapes[path] for path in (u, t)} == {u: U.shape, t: T.shape}
    assert stores.ask(url, names, "names") == (url, sorted(shapes))
    window, times = stores.read(url, [(u, (3, slice(2, 5), slice(None), 4)), (t, (0, slice(1, 4)))])
    assert np.array_equal(window, U[3, 2:5, :, 4])
    assert np.array_equal(times, T[0, 1:4])
    with pytest.raises(Exception, match=rf"{name}.*(there is no such dataset|found: .*{t}|w: no such file)"):
        stores.array(url, "w")
    stores.store(url).close()
    assert np.array_equal(stores.read(url, [(u, (0, 0))])[0], U[0, 0])  # opened again


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "own"])
def test_an_array_that_is_not_there_is_told_from_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    FORMATS[name](tmp_path / name)
    with pytest.raises(NoArrayError, match="found: "):
        Stores().array(str(tmp_path / name), "uu")


def test_a_local_file_is_not_kept_open_by_a_question(tmp_path: Path) -> None:
    hdf5_file(tmp_path / "own.h5")
    stores = Stores()
    stores.ask(str(tmp_path / "own.h5"), names, "names")
    opened = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert str(tmp_path / "own.h5") not in opened


def test_arrays_that_lie_contiguous_are_mapped_and_others_are_read(tmp_path: Path) -> None:
    hdf5_file(tmp_path / "own.h5")
    store = Stores().store(str(tmp_path / "own.h5"))
    mapped: NDArray[Any] = store.array("u")[...]
    assert not mapped.flags.owndata
    assert isinstance(store.array("packed"), h5py.Dataset)
