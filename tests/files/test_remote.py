"""Windows of remote HDF5 files, over the wire from servers on loopback."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from opframe.files.cache import RemoteCache
from opframe.files.file import GAP, PART
from opframe.readers.remote_hdf5 import RemoteHdf5
from opframe_registry import DataError
from remote_support import CHUNKS, MIB, RANDOM, SMOOTH, cache_in, hdf5, one, put
from servers import Bucket, FileServer

# Any selection


def keys(shape: tuple[int, ...]) -> st.SearchStrategy[tuple[int | slice, ...]]:
    """Selections as a reader makes them: indices, and slices that may step."""

    def axis(size: int) -> st.SearchStrategy[int | slice]:
        edges = st.lists(st.integers(0, size), min_size=2, max_size=2).map(sorted)
        stepped = st.builds(lambda ends, step: slice(*ends, step), edges, st.integers(1, 4))
        return st.one_of(st.integers(-size, size - 1), stepped, st.just(slice(None)))

    return st.tuples(*map(axis, shape))


LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "big-endian": {"dtype": ">f8"},
    "plain chunks": CHUNKS,
    "gzip, shuffle, checksum": {**CHUNKS, "compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf": {**CHUNKS, "compression": "lzf"},
    "scale and offset": {**CHUNKS, "dtype": "i2", "scaleoffset": 0},
    "integers of 12 bits": {},
    "resizable": {**CHUNKS, "compression": "gzip", "maxshape": (None, 9, None, 13, 2)},
}


@pytest.mark.parametrize(("limit", "block"), [(0, 0), (64 * MIB, 512)], ids=["nothing kept", "kept, as of MATLAB"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_window_equals_the_slice_of_the_local_file(
    server: FileServer, tmp_path: Path, layout: str, limit: int, block: int
) -> None:
    def write(file: h5py.File) -> None:
        file["before"] = np.arange(1000)
        if layout == "integers of 12 bits":
            kind = h5py.h5t.STD_I16LE.copy()
            kind.set_precision(12)
            space = h5py.h5s.create_simple(SMOOTH.shape)
            h5py.Dataset(h5py.h5d.create(file.id, b"data", kind, space))[...] = SMOOTH.astype("i2")
        else:
            file.create_dataset("data", data=SMOOTH.astype(LAYOUTS[layout].get("dtype", "f4")), **LAYOUTS[layout])

    content = hdf5(write, userblock_size=block)
    remote = RemoteHdf5(server.serve("file.h5", content), cache_in(tmp_path, limit=limit)).array("data")
    with h5py.File(io.BytesIO(content), "r") as file:
        local = file["data"]

        @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
        @given(keys(SMOOTH.shape))
        def check(key: tuple[int | slice, ...]) -> None:
            window = remote[key]
            assert np.array_equal(window, local[key])
            assert window.dtype == local[key].dtype
            assert not window.ndim or window.flags.writeable

        check()
        assert (remote.shape, remote.dtype) == (local.shape, local.dtype)
        assert np.array_equal(remote[..., 1], local[..., 1])
        assert np.array_equal(remote[2], local[2])


def test_what_was_never_written_is_the_fill_value(server: FileServer, cache: RemoteCache) -> None:
    def write(file: h5py.File) -> None:
        file.create_dataset("contiguous", (6, 5), "f4", fillvalue=7)
        for name, options in {"plain": {}, "gzip": {"compression": "gzip"}}.items():
            file.create_dataset(name, (20, 30), "f4", chunks=(4, 7), fillvalue=-1, **options)[5:7, 20:] = 3

    file = RemoteHdf5(server.serve("file.h5", hdf5(write)), cache)
    assert (file.array("contiguous")[1:3] == 7).all()
    expected = np.full((20, 30), -1, "f4")
    expected[5:7, 20:] = 3
    for name in ("plain", "gzip"):
        assert np.array_equal(file.array(name)[...], expected)
        assert (file.array(name)[12:, ::2] == -1).all()


@pytest.mark.parametrize("name", ["Blosc", "Zstd", "LZ4"])
def test_filters_of_hdf5plugin_are_decoded(server: FileServer, cache: RemoteCache, name: str) -> None:
    plugin = pytest.importorskip("hdf5plugin")
    file = RemoteHdf5(server.serve("file.h5", one(**CHUNKS, compression=getattr(plugin, name)())), cache)
    assert np.array_equal(file.array("data")[3, 2:7], SMOOTH[3, 2:7])


def test_a_filter_that_is_not_installed_is_named_with_its_package(server: FileServer, tmp_path: Path) -> None:
    plugin = pytest.importorskip("hdf5plugin")
    url = server.serve("file.h5", one(**CHUNKS, compression=plugin.Zstd()))
    code = (
        "import sys; sys.modules['hdf5plugin'] = None\n"
        "from pathlib import Path\n"
        "from opframe.readers.remote_hdf5 import RemoteHdf5\n"
        "from opframe.files.cache import RemoteCache\n"
        f"RemoteHdf5({url!r}, RemoteCache(folder=Path({str(tmp_path)!r}))).array('data')"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr
    assert "file.h5: 'data' is stored with filter 32015 (HDF5 zstd filter); pip install \"opframe[filters]\"" in told


def test_layouts_that_ranges_cannot_serve_are_read_all_the_same(server: FileServer, cache: RemoteCache) -> None:
    words = ["one", "three", "five hundred"]

    def write(file: h5py.File) -> None:
        file["words"] = words
        file["number"] = 2.5
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((4,))
        h5py.Dataset(h5py.h5d.create(file.id, b"compact", h5py.h5t.IEEE_F64LE, space, compact))[...] = np.arange(4)
        file["a"], file["b"] = np.arange(6.0), np.arange(6.0, 12)
        layout = h5py.VirtualLayout((2, 6), "f8")
        layout[0], layout[1] = h5py.VirtualSource(file["a"]), h5py.VirtualSource(file["b"])
        file.create_virtual_dataset("virtual", layout)

    file = RemoteHdf5(server.serve("file.h5", hdf5(write)), cache)
    assert file.array("words")[1:].tolist() == [b"three", b"five hundred"]
    assert file.array("number")[()] == 2.5
    assert np.array_equal(file.array("compact")[1:3], [1, 2])
    assert np.array_equal(file.array("virtual")[:, 2:4], [[2, 3], [8, 9]])


def test_data_in_other_files_is_refused_as_hdf5_would_give_fill_values(server: FileServer, cache: RemoteCache) -> None:
    def write(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource("elsewhere.h5", "data", (4,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("external", (4,), "f8", external=[("elsewhere.bin", 0, 32)])

    file = RemoteHdf5(server.serve("file.h5", hdf5(write)), cache)
    for name in ("virtual", "external"):
        with pytest.raises(DataError, match=rf"file\.h5: '{name}' lies in other files \(elsewhere"):
            file.array(name)


def test_names_and_attributes_are_those_of_the_file(server: FileServer, cache: RemoteCache) -> None:
    def write(file: h5py.File) -> None:
        for number in range(40):
            group = file.create_group(f"{number:04}")
            group["data"] = SMOOTH[0]
            group.attrs["config"] = f"number: {number}\n" * 60
        file.attrs["viscosity"] = 1e-3

    file = RemoteHdf5(server.serve("file.h5", hdf5(write)), cache)
    assert file.names() == tuple(f"{number:04}" for number in range(40))
    assert file.names("0007") == ("data",)
    assert file.attributes() == {"viscosity": 1e-3}
    assert file.attributes("0031")["config"].startswith("number: 31\n")
    with pytest.raises(DataError, match=r"file\.h5: '0041/data': there is no such dataset"):
        file.array("0041/data")
    with pytest.raises(DataError, match=r"file\.h5: has no group '0041'"):
        file.names("0041")


def test_selections_that_do_not_fit_are_index_errors(server: FileServer, cache: RemoteCache) -> None:
    array = RemoteHdf5(server.serve("file.h5", one()), cache).array("data")
    for key in [5, (0, 0, 0, 0, 0, 0), slice(None, None, -1), (..., 0, ...)]:
        with pytest.raises(IndexError):
            array[key]


# Requests


def windows(server: FileServer | Bucket, array: Any, data: NDArray[Any], count: int = 20) -> list[str]:
    """Read random windows of three frames and return what was asked for."""
    server.requests.clear()
    for _ in range(count):
        trajectory, start = RANDOM.integers(len(data)), RANDOM.integers(data.shape[1] - 2)
        window = (int(trajectory), slice(int(start), int(start) + 3))
        assert np.array_equal(array[window], data[window])
    return server.requests


@pytest.mark.parametrize(
    "options", [{}, CHUNKS, {**CHUNKS, "compression": "gzip"}], ids=["contiguous", "plain", "gzip"]
)
def test_a_random_window_costs_one_request(server: FileServer, cache: RemoteCache, options: dict[str, Any]) -> None:
    data = RANDOM.normal(size=(6, 12, 64, 64, 2)).astype("f4")
    options = options and {**options, "chunks": (1, 4, 16, 16, 2)}
    array = RemoteHdf5(server.serve("file.h5", one(data, **options)), cache).array("data")
    before = cache.counters
    assert len(windows(server, array, data)) == 20
    assert (cache.counters - before).requests == 20
    if not options:
        assert (cache.counters - before).bytes == 20 * 3 * data[0, 0].nbytes


def test_a_window_over_s3_costs_one_request(bucket: Bucket, cache: RemoteCache) -> None:
    array = RemoteHdf5(put("s3://data/one.h5", one(**CHUNKS, compression="gzip")), cache).array("data")
    assert len(windows(bucket, array, SMOOTH)) == 20


def test_pieces_that_lie_far_apart_are_fetched_at_the_same_time(server: FileServer, cache: RemoteCache) -> None:
    data = RANDOM.normal(size=(8, 2, GAP // 4)).astype("f4")
    array = RemoteHdf5(server.serve("file.h5", one(data)), cache).array("data")
    server.requests.clear()
    server.delay = 0.2
    assert np.array_equal(array[:, 1, :9], data[:, 1, :9])
    assert len(server.requests) == 8
    assert server.busiest > 3  # one after the other it would be 1; a machine that is busy may not reach 8


def test_several_datasets_and_windows_are_fetched_at_the_same_time(server: FileServer, cache: RemoteCache) -> None:
    data = RANDOM.normal(size=(3, 4, GAP // 8)).astype("f4")

    def write(file: h5py.File) -> None:
        file["u"], file["v"], file["name"] = data, -data, "flow"
        file.create_dataset("w", data=2 * data, chunks=(1, 4, GAP // 8), compression="gzip")

    file = RemoteHdf5(server.serve("file.h5", hdf5(write)), cache)
    wanted = [
        ("u", (0, slice(1, 3))),
        ("v", (1, slice(1, 3))),
        ("w", 2),
        ("u", (2, 3)),
        ("v", slice(0, 0)),
        ("name", ()),
    ]
    file.read(wanted)  # the index
    server.requests.clear()
    server.delay = 0.2
    u, v, w, late, nothing = file.read(wanted[:-1])
    assert server.busiest > 1  # one after the other it would be 1
    assert np.array_equal(u, data[0, 1:3])
    assert np.array_equal(v, -data[1, 1:3])
    assert np.array_equal(w, 2 * data[2])
    assert np.array_equal(late, data[2, 3])
    assert nothing.shape == (0, 4, GAP // 8)


def test_pieces_that_lie_near_are_one_request(server: FileServer, cache: RemoteCache) -> None:
    array = RemoteHdf5(server.serve("file.h5", one()), cache).array("data")
    server.requests.clear()
    assert np.array_equal(array[1:3, ..., 2:4, 0], SMOOTH[1:3, ..., 2:4, 0])
    assert len(server.requests) == 1


def test_long_ranges_are_fetched_in_parts(server: FileServer, cache: RemoteCache) -> None:
    data = RANDOM.integers(0, 99, size=(2, PART + 5), dtype="u1")
    array = RemoteHdf5(server.serve("file.h5", one(data)), cache).array("data")
    server.requests.clear()
    assert np.array_equal(array[1], data[1])
    assert len(server.requests) == 2


def test_threads_may_share_a_file(server: FileServer, tmp_path: Path) -> None:
    for limit in (0, MIB):
        file = RemoteHdf5(server.serve("file.h5", one(**CHUNKS, compression="lzf")), cache_in(tmp_path, limit=limit))

        def read(number: int, file: RemoteHdf5 = file) -> bool:
            window = (number % 5, slice(number % 7, None))
            return np.array_equal(file.array("data")[window], SMOOTH[window])

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(read, range(60)))


def test_memory_does_not_grow_with_reading(server: FileServer, cache: RemoteCache) -> None:
    data = np.zeros((4, 40, 64, 64), "f4")
    array = RemoteHdf5(server.serve("file.h5", one(data, chunks=(1, 40, 64, 64), compression="gzip")), cache).array(
        "data"
    )

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for number in range(20):
        array[number % 4, :5]
    before = resident()
    for number in range(200):
        array[number % 4, :5]
    assert resident() - before < 20 * MIB  # 200 windows hold 130 MB


# Processes


def test_a_file_travels_to_another_process(server: FileServer, cache: RemoteCache) -> None:
    file = RemoteHdf5(server.serve("file.h5", one()), cache)
    array = file.array("data")
    expected = array[1, 2:5]
    assert np.array_equal(pickle.loads(pickle.dumps(array))[1, 2:5], expected)
    file.close()
    assert np.array_equal(array[1, 2:5], expected)


def test_a_file_that_was_opened_before_a_fork_is_opened_again_after_it(server: FileServer, cache: RemoteCache) -> None:
    file = RemoteHdf5(server.serve("file.h5", one(**CHUNKS, compression="gzip")), cache)
    array = file.array("data")
    assert np.array_equal(array[0], SMOOTH[0])

    def read(pipe: Connection) -> None:
        pipe.send((array[1], cache.counters.requests))

    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=read, args=(there,))
    child.start()
    assert here.poll(20), "the child hangs"
    window, requests = here.recv()
    child.join()
    assert np.array_equal(window, SMOOTH[1])
    assert requests == 2  # its own: opening, window
    assert np.array_equal(array[2], SMOOTH[2])


# Other filesystems


def test_any_filesystem_of_fsspec_will_do(
    server: FileServer, bucket: Bucket, cache: RemoteCache, tmp_path: Path
) -> None:
    content = one(**CHUNKS, compression="gzip")
    (tmp_path / "file.h5").write_bytes(content)
    urls = [
        server.serve("file.h5", content),
        put("s3://data/file.h5", content),
        put("memory://data/file.h5", content),
        f"file://{tmp_path}/file.h5",
        f"simplecache::{server.url('file.h5')}",
    ]
    for url in urls:
        assert np.array_equal(RemoteHdf5(url, cache).array("data")[1:3, ::2], SMOOTH[1:3, ::2]), url


def test_a_server_that_goes_on_stalling_is_an_error(server: FileServer, tmp_path: Path) -> None:
    file = RemoteHdf5(server.serve("file.h5", one()), cache_in(tmp_path, timeout=0.2))
    array = file.array("data")
    server.faults = ["stall"] * 4
    with pytest.raises(DataError, match=r"no answer .*tried 4 times"):
        array[0]


def test_nothing_runs_before_something_is_asked(server: FileServer, cache: RemoteCache) -> None:
    before = threading.active_count()
    file = RemoteHdf5(server.serve("file.h5", one()), cache)
    assert server.requests == []
    assert threading.active_count() == before
    assert cache.counters.requests == 0
    assert pickle.loads(pickle.dumps(file)) == file
