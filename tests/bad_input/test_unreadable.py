"""What cannot be read at all: by its format, for lack of a package, or for lack of permission."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from tempfile import gettempdir

import h5py
import numpy as np
import pytest

from bad_files_support import (
    HDF5,
    NUMPY,
    A,
    Case,
    Make,
    X,
    call,
    complain,
    config,
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
from opframe_registry import discover

MAT = matlab({"u": X[..., 0]})
OTHER = "not HDF5, NetCDF 4, MATLAB, NumPy (.npy) or zarr, which is what can be read"
NO_ARRAYS = "no installed component reads this; what is there: no arrays"

UNREADABLE = [
    (raw("own.npy", b""), "own.npy: cannot be read as a NumPy file; truncated or not NumPy?"),
    (raw("own.npy", saved(A + 1j)), "(the array) 6 x 8 x 16 x 16 x 1 cannot be opened as array: "),
    (raw("own.h5", b"some words"), f"own.h5: {OTHER}"),
    (raw("own.h5", half(data(X))), "own.h5: cannot be read as HDF5; truncated or not HDF5?"),
    (raw("own.h5", named()), NO_ARRAYS),
    (raw("own.txt", saved(A)), f"own.txt: {OTHER}"),
    (raw("own.mat", half(MAT)), "own.mat: cannot be read as a MATLAB file; truncated or not MATLAB?"),
    (raw("own.mat", matlab({"u": np.array([[1, "a"]], dtype=object)})), NO_ARRAYS),
    (zarr_array(A, lambda folder: (folder / "zarr.json").write_text("[]")), "own.zarr: cannot be read as Zarr"),
    (zarr_group(), NO_ARRAYS),
    (nothing("none.h5"), "none.h5: no such file"),
    (nothing("empty", is_folder=True), "empty: holds no HDF5, NetCDF 4, MATLAB, NumPy (.npy) or Zarr files"),
    (folder_of(b"bad"), f"data_0.hdf5: {OTHER}"),
]


@pytest.mark.parametrize(("make", "expected"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_a_path_that_nothing_reads_is_no_success(make: Make, expected: str, tmp_path: Path) -> None:
    code, printed = call("data", "info", str(make(tmp_path)))
    assert expected in printed
    assert (code, "Traceback" in printed) == (2, False)


@pytest.mark.parametrize(
    ("url", "module", "expected"),
    [
        ("own.zarr", "zarr", 'Zarr is read by the package zarr; pip install "opframe[zarr]"'),
        (
            "s3://bucket/own.h5",
            "s3fs",
            "s3:// needs a package that is not there (Install s3fs to access S3); pip install",
        ),
        ("https://host/own.npy", "aiohttp", 'pip install "opframe[cloud]"'),
        ("hf://datasets/some/one/own.h5", "huggingface_hub", 'pip install "opframe[hub]"'),
        ("nosuch://host/own.h5", "none", "Protocol not known: nosuch"),
    ],
)
@pytest.mark.parametrize("command", ["check", "data check", "data info"])
def test_a_package_that_is_missing_is_named_with_what_installs_it(
    url: str, module: str, expected: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = url if "://" in url else zarr_array(A)(tmp_path)
    without(module, monkeypatch)
    table = NUMPY if url.endswith((".zarr", ".npy")) else HDF5
    words = [str(config(tmp_path, where, table))]
    for one in [words, [str(where)]] if command == "data info" else [words]:
        code, printed = call(*command.split(), *one)
        assert expected in printed
        assert (code, "Traceback" in printed) == (2, False)


def without(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a package were not installed, nor fsspec's filesystems loaded yet."""
    for name in list(sys.modules):
        if name.split(".")[0] in (module, "s3fs") or name in ("fsspec.implementations.http", "huggingface_hub"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    for protocol in ("s3", "http", "https", "hf"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)  # type: ignore[attr-defined]


def test_a_filter_that_is_missing_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = pytest.importorskip("hdf5plugin")
    content = hdf5(lambda file: file.create_dataset("data", data=X, chunks=(1, 16, 16, 8, 1), **plugin.Zstd()))
    h5py.h5z.unregister_filter(plugin.ZSTD_ID)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    try:
        expected = '(HDF5 zstd filter); pip install "opframe[filters]"'
        complain(Case("filter", raw("own.h5", content), HDF5, expected), tmp_path)
    finally:
        plugin.register("zstd", force=True)


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = raw("own.h5", data(X))(tmp_path)
    experiment = config(tmp_path, where, HDF5)
    commands = (["data", "info", str(where)], ["data", "info", str(experiment)], ["check", str(experiment)])
    installed = discover()
    for module in ("main", "data"):  # the other user may not be able to look into this environment, either
        monkeypatch.setattr(f"opframe.cli.{module}.discover", lambda: installed)
    assert [call(*words)[0] for words in commands] == [0, 0, 0]
    where.chmod(0)
    with another_user(tmp_path):
        for words in commands:
            code, printed = call(*words)
            assert "own.h5: may not be read by this user; change its permissions" in printed
            assert code == 2


@contextmanager
def another_user(folder: Path) -> Iterator[None]:
    """Whoever may read everything becomes one who may not, for a while."""
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *takewhile(lambda parent: parent != Path(gettempdir()), folder.parents)):
        path.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
