"""What is kept on disk of remote files: their index and their data."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from opframe.files.cache import RemoteCache
from opframe.files.store import Store
from opframe.readers.remote_hdf5 import RemoteHdf5
from remote_support import CHUNKS, MIB, RANDOM, SMOOTH, cache_in, grouped, one, put
from servers import Bucket, FileServer


def test_the_index_is_read_once_and_outlives_the_process(server: FileServer, tmp_path: Path) -> None:
    url = server.serve("file.h5", grouped())
    first = RemoteHdf5(url, cache_in(tmp_path))
    assert first.names() == RemoteHdf5(url, cache_in(tmp_path)).names()
    first.array("0003/data")
    server.requests.clear()
    later = RemoteHdf5(url, cache_in(tmp_path))
    assert later.names()[3] == "0003"
    assert np.array_equal(later.array("0003/data")[2:4], SMOOTH[3, 2:4] + 3)
    assert [request.split()[0] for request in server.requests] == ["HEAD", "GET"]
    assert sum(path.stat().st_size for path in (tmp_path / "index").rglob("*") if path.is_file()) < 20_000


def test_a_changed_file_gets_a_new_index(server: FileServer, tmp_path: Path) -> None:
    url = server.serve("file.h5", one())
    RemoteHdf5(url, cache_in(tmp_path, limit=MIB)).array("data")[0]
    server.serve("file.h5", one(SMOOTH[:2] + 1, **CHUNKS))
    array = RemoteHdf5(url, cache_in(tmp_path, limit=MIB)).array("data")
    assert np.array_equal(array[...], SMOOTH[:2] + 1)


def test_a_large_index_takes_few_requests(server: FileServer, cache: RemoteCache) -> None:
    data = RANDOM.integers(0, 255, (20_000, 64), dtype="u1")
    array = RemoteHdf5(server.serve("file.h5", one(data, chunks=(1, 64), fletcher32=True)), cache).array("data")
    assert len(server.requests) < 12  # a thousand nodes of a tree in 3 MB
    assert np.array_equal(array[1234:1300, :9], data[1234:1300, :9])


def test_what_is_held_in_memory_of_the_index_is_bounded(
    server: FileServer, cache: RemoteCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opframe.readers.remote_hdf5._LAYOUTS", 3)
    file = RemoteHdf5(server.serve("file.h5", grouped()), cache)
    for number in (*range(10), *range(10)):
        assert np.array_equal(file.array(f"{number:04}/data")[0], SMOOTH[number % 5, 0] + number)
        assert len(file._session.layouts) <= 3


def test_what_was_read_is_not_asked_for_again(server: FileServer, tmp_path: Path) -> None:
    url = server.serve("file.h5", one(**CHUNKS))
    for attempt in range(2):
        array = RemoteHdf5(url, cache_in(tmp_path, limit=MIB)).array("data")
        assert np.array_equal(array[...], SMOOTH)
        if attempt == 0:
            server.requests.clear()
    assert [request.split()[0] for request in server.requests] == ["HEAD"]


def test_a_file_larger_than_the_limit_is_not_kept(server: FileServer, tmp_path: Path) -> None:
    content = one()
    array = RemoteHdf5(server.serve("file.h5", content), cache_in(tmp_path, limit=len(content) - 1)).array("data")
    array[0]
    assert not (tmp_path / "blocks").exists()


def test_nothing_is_kept_of_a_file_whose_version_is_unknown(server: FileServer, tmp_path: Path) -> None:
    server.etags = server.times = False
    url = server.serve("file.h5", one())
    assert np.array_equal(RemoteHdf5(url, cache_in(tmp_path, limit=MIB)).array("data")[...], SMOOTH)
    server.serve("file.h5", one(SMOOTH + 1))
    assert np.array_equal(RemoteHdf5(url, cache_in(tmp_path, limit=MIB)).array("data")[...], SMOOTH + 1)


def test_entries_not_used_for_longest_make_room(tmp_path: Path) -> None:
    store = Store(tmp_path, limit=64 * 1024)
    for number in range(200):
        store.put(f"{number:08x}", bytes(1024))
        os.utime(store._path(f"{number:08x}"), (number, number))
        if number == 40:
            continue
        assert store.get("00000000") == bytes(1024), number  # in use all the time
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert 40 * 1024 < sum(path.stat().st_size for path in files) <= 64 * 1024
    assert store.get("00000005") is None
    assert store.get(f"{199:08x}") == bytes(1024)


def fill(folder: Path, seed: int) -> None:
    store = Store(folder, limit=2 * MIB)
    for number in np.random.default_rng(seed).integers(0, 400, 600):
        content = store.get(f"{number:08x}")
        assert content in (None, bytes([number % 256]) * 16_384)
        if content is None:
            store.put(f"{number:08x}", bytes([number % 256]) * 16_384)


def test_processes_that_write_at_the_same_time_stay_within_the_limit(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=fill, args=(tmp_path, seed)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert MIB < sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 2 * MIB


def test_a_damaged_entry_is_fetched_again(server: FileServer, tmp_path: Path) -> None:
    url = server.serve("file.h5", one())
    for damage in (
        lambda content: content[:-50],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda _: b"",
    ):
        RemoteHdf5(url, cache_in(tmp_path, limit=MIB)).array("data")[...]
        for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
            path.write_bytes(damage(path.read_bytes()))
        assert np.array_equal(RemoteHdf5(url, cache_in(tmp_path, limit=MIB)).array("data")[...], SMOOTH)


def test_a_folder_that_cannot_be_written_is_said_once(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = RemoteHdf5(server.serve("file.h5", grouped()), cache_in(tmp_path / "file"))
    with pytest.warns(UserWarning, match="remote data is not kept here"):
        file.array("0000/data")
    with warnings.catch_warnings(action="error"):
        assert np.array_equal(file.array("0001/data")[0], SMOOTH[1, 0] + 1)


READ = (
    "import sys; from pathlib import Path\n"
    "from opframe.readers.remote_hdf5 import RemoteHdf5\n"
    "from opframe.files.cache import RemoteCache\n"
    "array = RemoteHdf5('s3://data/shared.h5', RemoteCache(folder=Path(sys.argv[1]))).array('data')\n"
    "print(float(array[...].sum(dtype='f8')))"
)


def test_two_processes_share_what_they_read(bucket: Bucket, tmp_path: Path) -> None:
    put("s3://data/shared.h5", one(**CHUNKS, compression="gzip"))
    environment = {**os.environ, "FSSPEC_S3_ENDPOINT_URL": bucket.endpoint}
    requests = []
    for _ in range(2):
        bucket.requests.clear()
        command = [sys.executable, "-c", READ, str(tmp_path)]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        assert float(answer) == SMOOTH.sum(dtype="f8")
        requests.append([request.split()[0] for request in bucket.requests])
    assert requests[0].count("GET") >= 1
    assert requests[1] == ["HEAD"]
