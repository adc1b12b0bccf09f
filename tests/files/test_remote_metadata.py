"""What is learnt of remote data before a window is read: few requests, of one version, with errors that say enough."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from data_support import Command, command
from layout_support import LAYOUTS
from opframe.files.cache import remote_cache
from opframe.files.retries import Retries
from opframe.readers.contents import gather
from opframe.readers.stores import Stores
from opframe_registry import Catalog, DataError, Dataset, Trajectories
from remote_support import MIB, hdf5
from servers import Bucket, FileServer

__all__ = ["command"]


@pytest.fixture(autouse=True)
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Calling it makes this process as one that has just begun; all of them share a cache and wait shortly."""
    monkeypatch.setenv("OPFRAME_CACHE", str(tmp_path / "cache"))

    def begin() -> None:
        remote_cache.cache_clear()
        monkeypatch.setattr(remote_cache(), "retries", Retries(attempts=4, first=0.02))

    begin()
    yield begin
    remote_cache.cache_clear()


def opened(catalog: Catalog, name: str, url: Path | str, split: str = "test", **keys: object) -> Trajectories:
    return catalog.get(Dataset, name)(url=str(url), **keys).build(split, Path())


def spread(*names: str, group: str = "/") -> bytes:
    """A file of several arrays of 2 MB, with their headers before each and small ones after them, as h5py writes it."""

    def write(file: h5py.File) -> None:
        for index, name in enumerate(names):
            data = np.full((8, 16, 64, 64), index, "f4") + np.arange(8, dtype="f4")[:, None, None, None]
            file.create_dataset(f"{group}/{name}", data=data)
        for name, size in (("t-coordinate", 17), ("x-coordinate", 64), ("y-coordinate", 64), ("dx", 8), ("buo_y", 8)):
            file[f"{group}/{name}"] = np.arange(size, dtype="f4")

    return hdf5(write)


def groups(count: int) -> bytes:
    """A file of groups that lie 0.7 MB apart, as those of PDEBench lie 30 MB apart."""

    def write(file: h5py.File) -> None:
        for number in range(count):
            file[f"{number:04}/data"] = np.full((21, 64, 64, 2), number, "f4")
            for axis, size in (("t", 21), ("x", 64), ("y", 64)):
                file[f"{number:04}/grid/{axis}"] = np.linspace(0, 1, size)

    return hdf5(write)


def npy(array: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


WELL = LAYOUTS / "the_well" / "ns_kolmogorov_uv" / "data" / "test" / "ns_kolmogorov_uv.hdf5"
FILES: dict[str, tuple[str, bytes, dict[str, object], int]] = {
    "cfd.hdf5": ("pdebench", spread("Vx", "Vy", "density", "pressure"), {}, 6),
    "2D_diff-react_NA_NA.h5": ("pdebench", groups(8), {}, 9),
    **{path.name: ("pdebench", path.read_bytes(), {}, 2) for path in sorted((LAYOUTS / "pdebench").glob("*5"))},
    **{path.name: ("fno_mat", path.read_bytes(), {}, 2) for path in sorted((LAYOUTS / "fno").glob("*.mat"))},
    "well.hdf5": ("the_well", WELL.read_bytes(), {}, 2),
    "prepared.h5": ("prepared", spread("data"), {"dimensions": 2}, 3),
    "own.npy": ("array", npy(np.random.default_rng(0).normal(size=(4, 9, 64, 64))), {"axes": "n t x y"}, 2),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("limit", [0, 64 * MIB], ids=["nothing kept", "kept"])
def test_opening_a_file_over_http_takes_a_handful_of_requests(
    server: FileServer,
    catalog: Catalog,
    tmp_path: Path,
    process: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    limit: int,
) -> None:
    kind, content, keys, most = FILES[name]
    (tmp_path / name).write_bytes(content)
    local, url = opened(catalog, kind, tmp_path / name, **keys), server.serve(name, content)
    for requests in (most, 1):
        process()
        monkeypatch.setattr(remote_cache(), "limit", limit)
        server.requests.clear()
        remote = opened(catalog, kind, url, **keys)
        assert len(server.requests) <= requests + (5 if kind == "fno_mat" and not limit else 1 if not limit else 0)
        assert np.array_equal(remote.read(0, 1, 3), local.read(0, 1, 3))


def well_folder(folder: Path, trajectories: tuple[int, ...]) -> Path:
    """Files of The Well with as many trajectories as named, whose values differ."""
    (folder / "test").mkdir(parents=True)
    for index, count in enumerate(trajectories):
        path = folder / "test" / f"part_{index}.hdf5"
        shutil.copy(WELL, path)
        with h5py.File(path, "r+") as file:
            for group in ("t0_fields", "t1_fields", "t2_fields"):
                for name in list(file.get(group, {})):
                    data, attributes = file[group][name][...], dict(file[group][name].attrs)
                    del file[group][name]
                    file[group][name] = np.repeat(data, count, axis=0) + index
                    file[group][name].attrs.update(attributes)
    return folder


def test_headers_of_many_files_are_read_at_the_same_time(server: FileServer, catalog: Catalog, tmp_path: Path) -> None:
    counts = (1, 2, 1, 3, 1, 1, 2, 1, 1, 1)
    local = opened(catalog, "the_well", well_folder(tmp_path / "well", counts))
    url = server.put(tmp_path / "well", "well")
    server.listings, server.delay = True, 0.1
    remote = opened(catalog, "the_well", url)
    assert remote.metadata.trajectories == sum(counts)
    assert server.busiest > 4  # one after the other it would be 1
    server.delay = 0
    for trajectory in range(sum(counts)):
        assert np.array_equal(remote.read(trajectory, 0, 2), local.read(trajectory, 0, 2))


def test_files_of_a_bucket_take_two_requests_each_and_later_one(
    bucket: Bucket, catalog: Catalog, tmp_path: Path, process: Callable[[], None]
) -> None:
    counts = (1, 2, 1, 3, 1)
    import fsspec

    well_folder(tmp_path / "well", counts)
    fsspec.filesystem("s3").put(f"{tmp_path}/well", "data/well", recursive=True)
    for most in (2, 1):
        process()
        bucket.requests.clear()
        remote = opened(catalog, "the_well", "s3://data/well")
        asked = [request for request in bucket.requests if ".hdf5" in request]
        assert remote.metadata.trajectories == 8
        assert len(asked) == most * len(counts)


# NumPy


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("limit", [0, 64 * MIB], ids=["nothing kept", "kept"])
def test_a_window_of_a_numpy_file_is_one_range_of_bytes(
    server: FileServer, process: Callable[[], None], monkeypatch: pytest.MonkeyPatch, order: str, limit: int
) -> None:
    monkeypatch.setattr(remote_cache(), "limit", limit)
    data = np.random.default_rng(1).normal(size=(12, 20, 48, 40)).astype("f4", order=order)
    url = server.serve("u.npy", npy(data))
    stores = Stores()
    for _ in range(2):
        server.requests.clear()
        for key in ((3, slice(2, 5), slice(None), slice(None)), (slice(None), 4, slice(1, 9, 2), 7), (0, 1, 2, 3)):
            assert np.array_equal(stores.array(url, "")[key], data[key])
        window = stores.array(url, "")[3, 2:5]
        assert window.dtype == data.dtype
    gets = [request for request in server.requests if request.startswith("GET")]
    assert gets == [] if limit else len(gets) >= 4
    if not limit and order == "C":
        assert "bytes=476288-499327" in gets[0]  # ((3 x 20 + 2) x 48 x 40) x 4 + 128, three frames


def test_numpy_files_that_cannot_be_read_are_named(server: FileServer) -> None:
    whole = npy(np.zeros((4, 5)))
    wrong = {
        "short.npy": (whole[:-8], "shorter than its header says; truncated"),
        "cut.npy": (whole[:40], "cannot be read as a NumPy file; truncated"),
        "text.npy": (b"not NumPy", "cannot be read as a NumPy file"),
        "objects.npy": (npy(np.array([{}], dtype=object)), "holds Python objects"),
    }
    for name, (content, what) in wrong.items():
        with pytest.raises(DataError, match=rf"{name}: .*{what}"):
            Stores().array(server.serve(name, content), "")
    with pytest.raises(DataError, match=r"none\.npy: no such file"):
        Stores().array(server.url("none.npy"), "")


def cases(folder: Path, count: int = 5) -> Path:
    generator = np.random.default_rng(2)
    for number in range(count):
        case = folder / "cavity" / "prop" / f"case{number:04}"
        case.mkdir(parents=True)
        for name in "uv":
            np.save(case / f"{name}.npy", generator.normal(size=(12, 64, 64)))
        (case / "case.json").write_text(f'{{"density": {number + 1.5}}}')
    return folder / "cavity"


def test_case_folders_cost_a_request_a_window_and_none_again(
    server: FileServer, catalog: Catalog, tmp_path: Path, process: Callable[[], None]
) -> None:
    folder = cases(tmp_path)
    url = server.put(folder, "cavity")
    server.listings = True
    local = opened(catalog, "cfdbench", folder, "train", frames=6)
    for again in (False, True):
        process()
        server.requests.clear()
        remote = opened(catalog, "cfdbench", url, "train", frames=6)
        assert remote.metadata == local.metadata
        files = [request for request in server.requests if request.endswith((".npy", ".json")) or "bytes" in request]
        assert len(files) == 4 * (2 if again else 4)  # of each case: u and case.json, opened and read
        for trajectory in range(8):
            assert np.array_equal(remote.read(trajectory, 2, 5), local.read(trajectory, 2, 5))
        server.requests.clear()
        for trajectory in range(8):
            remote.read(trajectory, 2, 5)
        assert server.requests == []


# Old MATLAB files


@pytest.mark.parametrize("versions", [True, False])
def test_a_remote_file_of_old_matlab_is_fetched_once(
    server: FileServer, catalog: Catalog, process: Callable[[], None], versions: bool, tmp_path: Path
) -> None:
    server.etags = server.times = versions
    for sign in (1, -1):
        u = sign * np.arange(3 * 64 * 64 * 5, dtype="f4").reshape(3, 64, 64, 5)
        savemat(tmp_path / "ns.mat", {"u": u, "t": np.arange(1.0, 6.0)}, do_compression=True)
        url = server.serve("ns.mat", (tmp_path / "ns.mat").read_bytes())
        for again in (False, True):
            process()
            server.requests.clear()
            trajectories = opened(catalog, "fno_mat", url)
            for one in (trajectories, pickle.loads(pickle.dumps(trajectories))):
                assert np.array_equal(one.read(1, 2, 5)[:, 0], np.moveaxis(u[1, ..., 2:5], -1, 0))
            if again and versions:
                assert [request.split()[0] for request in server.requests] == ["HEAD"]
    kept = list(Path(os.environ["OPFRAME_CACHE"]).glob("matlab/*"))
    assert versions or not kept
    assert not [path for path in kept if path.suffix not in (".npy", ".lock")]


# Failures


def test_a_server_that_is_overloaded_while_a_folder_is_opened_is_waited_for(
    server: FileServer, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cases(tmp_path)
    url = server.put(folder, "cavity")
    server.listings = True
    local = opened(catalog, "cfdbench", folder, "train", frames=6)
    monkeypatch.setattr(remote_cache(), "retries", Retries(first=0.05))
    server.busy_until = time.monotonic() + 0.4
    remote = opened(catalog, "cfdbench", url, "train", frames=6)
    server.faults = [503, "drop", "truncate", "short", 502]
    assert np.array_equal(remote.read(1, 2, 5), local.read(1, 2, 5))
    assert remote_cache().counters.retries >= 5


@pytest.mark.parametrize("name", ["cfd.hdf5", "well.hdf5", "own.npy", "fno_ns_V1e-4_N3_T4.mat"])
@pytest.mark.parametrize("fault", [503, "short", "shifted", "truncate"])
def test_a_failure_that_passes_while_a_header_is_read_changes_nothing(
    server: FileServer, catalog: Catalog, name: str, fault: int | str
) -> None:
    kind, content, keys, _ = FILES[name]
    expected = opened(catalog, kind, server.serve(f"right/{name}", content), **keys)
    url = server.serve(name, content)
    server.faults = [fault, fault]
    remote = opened(catalog, kind, url, **keys)
    assert server.faults == []
    assert remote.metadata == expected.metadata
    assert np.array_equal(remote.read(0, 1, 3), expected.read(0, 1, 3))


@pytest.mark.parametrize("name", ["cfd.hdf5", "well.hdf5", "own.npy", "fno_ns_V1e-4_N3_T4.mat", "prepared.h5"])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_truncated_remote_file_is_an_error_before_any_window(
    server: FileServer, catalog: Catalog, name: str, part: float
) -> None:
    kind, content, keys, _ = FILES[name]
    url = server.serve(name, content[: int(part * len(content))])
    with pytest.raises(DataError, match=rf"{name}: .*truncated"):
        opened(catalog, kind, url, **keys)


@pytest.mark.parametrize("name", ["cfd.hdf5", "own.npy", "fno_ns_V1e-4_N3_T4.mat"])
@pytest.mark.parametrize("known", ["etag", "time"])
def test_a_file_that_changes_after_it_was_opened_is_an_error_and_not_other_data(
    server: FileServer, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, name: str, known: str
) -> None:
    monkeypatch.setattr(remote_cache(), "limit", 0)
    server.etags, server.times = known == "etag", known == "time"
    kind, content, keys, _ = FILES[name]
    before = opened(catalog, kind, server.serve(name, content), **keys)
    sent = pickle.dumps(before)
    url = server.serve(name, content[:-9] + bytes(range(1, 10)))
    for one in (before, pickle.loads(sent)):
        with pytest.raises(DataError, match=rf"{name}: the file has changed while it was in use"):
            one.read(0, 0, 3)
    assert kind == "fno_mat" or opened(catalog, kind, url, **keys).read(0, 0, 3).any()  # its last bytes are checked


def test_what_is_kept_of_a_file_is_of_the_version_that_was_opened(server: FileServer, catalog: Catalog) -> None:
    data = np.random.default_rng(3).normal(size=(2, 3, 8, 8)).astype("f4")
    before = opened(catalog, "array", server.serve("own.npy", npy(data)), axes="n t x y")
    sent = pickle.dumps(before)
    after = opened(catalog, "array", server.serve("own.npy", npy(-data)), axes="n t x y")
    for one, expected in ((before, data), (pickle.loads(sent), data), (after, -data)):
        assert np.array_equal(one.read(1, 0, 3)[:, 0], expected[1])


def test_a_folder_of_a_server_that_does_not_answer_is_not_an_empty_one(
    server: FileServer, catalog: Catalog, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"127\.0\.0\.1:1/well: .*tried 4 times"):
        opened(catalog, "the_well", "http://127.0.0.1:1/well")
    url = server.put(well_folder(tmp_path / "well", (1,)), "well")
    with pytest.raises(DataError, match=r"holds neither data/test/\*\.hdf5 nor test/\*\.hdf5 \(or does not exist\)"):
        opened(catalog, "the_well", url)  # it answers, but lists no folders


def test_credentials_are_not_in_the_errors_of_readers(server: FileServer, catalog: Catalog) -> None:
    server.password = "me:hush"
    content = hdf5(lambda file: file.create_dataset("other", data=np.zeros(3)))
    for name, what in (("none.h5", b""), ("text.h5", b"words"), ("other.h5", content)):
        if what:
            server.serve(name, what)
        with pytest.raises(DataError, match=name) as raised:
            opened(catalog, "prepared", server.url(name, "me:hush@"))
        assert "hush" not in str(raised.value), name


# `opframe data info`


def test_info_of_a_file_behind_http_takes_few_requests(server: FileServer, command: Command) -> None:
    url = server.serve("cfd.hdf5", FILES["cfd.hdf5"][1])
    done = command("data", "info", url)
    assert done.returncode == 0, done.stderr
    assert "this looks like pdebench" in done.stdout
    assert "7 trajectories of 16 frames" in done.stdout
    assert len(server.requests) <= 12
    assert all("bytes" in request or request.startswith("HEAD") for request in server.requests)


def test_info_of_a_prefix_in_a_bucket_says_what_it_is(bucket: Bucket, command: Command, tmp_path: Path) -> None:
    import fsspec

    fsspec.filesystem("s3").put(f"{LAYOUTS}/pdearena", "data/pda", recursive=True)
    done = command("data", "info", "s3://data/pda")
    assert done.returncode == 0, done.stderr
    assert "this looks like pdearena" in done.stdout
    assert "3 trajectories of 14 frames" in done.stdout
    assert len(bucket.requests) <= 16


def test_info_of_nothing_says_so(server: FileServer, bucket: Bucket) -> None:
    for url, what in {
        server.url("none.h5"): "no such file",
        server.url("folder"): "no such file; an HTTP server may list no folders",
        "s3://data/nothing": "no such file",
        "s3://data/nothing.h5": "no such file",
        "memory://nothing": "no such file",
        "http://127.0.0.1:1/folder": "tried 4 times",
    }.items():
        with pytest.raises(DataError, match=what) as raised:
            gather(url)
        assert url in str(raised.value)
    server.serve("text.h5", b"words")
    with pytest.raises(DataError, match=r"text\.h5: not HDF5, NetCDF 4, MATLAB"):
        gather(server.url("text.h5"))
