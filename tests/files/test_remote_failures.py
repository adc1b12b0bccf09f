"""Servers that fail, files that change, credentials: right data or an error, and nothing said that is secret."""

from __future__ import annotations

import io
import pickle
import time
import traceback
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest

from opframe.files.cache import RemoteCache
from opframe.files.retries import Retries
from opframe.readers.remote_hdf5 import RemoteHdf5
from opframe_registry import DataError
from remote_support import CHUNKS, MIB, SMOOTH, cache_in, one, put
from servers import Bucket, FileServer

# Failures that pass


FAULTS: list[list[int | str]] = [[503, 503], [429], [500, 502], ["drop", "drop"], ["truncate"], ["short"], ["shifted"]]


@pytest.mark.parametrize("faults", FAULTS, ids=str)
def test_a_failure_that_passes_gives_the_right_data(
    server: FileServer, cache: RemoteCache, faults: list[int | str]
) -> None:
    file = RemoteHdf5(server.serve("file.h5", one(**CHUNKS, compression="gzip")), cache)
    server.faults = list(faults)  # while the index is read
    array = file.array("data")
    server.faults = list(faults)
    assert np.array_equal(array[2, 3:6], SMOOTH[2, 3:6])
    assert server.faults == []
    assert cache.counters.retries >= 2


def test_a_server_that_is_overloaded_for_a_while_is_waited_for(server: FileServer, tmp_path: Path) -> None:
    url = server.serve("file.h5", one())
    server.busy_until = time.monotonic() + 0.5
    cache = cache_in(tmp_path, retries=Retries(first=0.05))
    assert np.array_equal(RemoteHdf5(url, cache).array("data")[1], SMOOTH[1])
    assert cache.counters.retries >= 2


def test_s3_that_is_overloaded_for_a_while_gives_the_right_data(bucket: Bucket, cache: RemoteCache) -> None:
    array = RemoteHdf5(put("s3://data/busy.h5", one()), cache).array("data")
    bucket.faults = [503]
    assert np.array_equal(array[2, 3:6], SMOOTH[2, 3:6])
    assert bucket.faults == []


def test_a_server_that_stalls_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    array = RemoteHdf5(server.serve("file.h5", one()), cache_in(tmp_path, timeout=0.3)).array("data")
    server.faults = ["stall"]
    started = time.monotonic()
    assert np.array_equal(array[2, 3:6], SMOOTH[2, 3:6])
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("fault", "what"), [(503, "HTTP 503 Service Unavailable"), ("drop", "disconnected"), ("short", "came instead of")]
)
def test_a_failure_that_stays_is_an_error_that_says_what_was_tried(
    server: FileServer, cache: RemoteCache, fault: int | str, what: str
) -> None:
    array = RemoteHdf5(server.serve("file.h5", one()), cache).array("data")
    server.requests.clear()
    server.faults = [fault] * 50
    with pytest.raises(DataError, match=rf"file\.h5: .*{what}.*; tried 4 times in \d+ s"):
        array[0]
    assert fault == "drop" or len(server.requests) == 4  # a lost connection aiohttp itself tries twice
    server.faults = []
    assert np.array_equal(array[0], SMOOTH[0])


def test_the_wait_that_a_server_asks_for_is_kept(server: FileServer, cache: RemoteCache) -> None:
    array = RemoteHdf5(server.serve("file.h5", one()), cache).array("data")
    server.faults, server.headers = [429], {"Retry-After": "1"}
    started = time.monotonic()
    array[0]
    assert time.monotonic() - started >= 1


# Failures that do not


@pytest.mark.parametrize(("fault", "what"), [(403, "HTTP 403 Forbidden"), (404, "no such file"), (400, "HTTP 400")])
def test_a_refusal_is_not_tried_again(server: FileServer, cache: RemoteCache, fault: int, what: str) -> None:
    array = RemoteHdf5(server.serve("file.h5", one()), cache).array("data")
    server.requests.clear()
    server.faults = [fault]
    with pytest.raises(DataError, match=rf"file\.h5: {what}"):
        array[0]
    assert len(server.requests) == 1


def test_what_is_wrong_with_a_file_or_an_address_is_said(
    server: FileServer, bucket: Bucket, cache: RemoteCache
) -> None:
    content = one()
    wrong = {
        server.url("none.h5"): "no such file",
        "s3://data/none.h5": "no such file",
        "memory://none.h5": "no such file",
        server.serve("text.h5", b"not HDF5 at all" * 100): "cannot be read as HDF5",
        server.serve("half.h5", content[: len(content) // 2]): "cannot be read as HDF5; truncated",
        server.serve("empty.h5", b""): "cannot be read as HDF5",
        "nothing://x.h5": "nothing",
        "http://127.0.0.1:1/x.h5": "tried 4 times",
    }
    for url, what in wrong.items():
        with pytest.raises(DataError, match=what) as raised:
            RemoteHdf5(url, cache).array("data")
        assert url in str(raised.value)


def test_a_server_without_ranges_is_refused_before_the_whole_file_comes(server: FileServer, cache: RemoteCache) -> None:
    server.ranges = False
    url = server.serve("file.h5", bytes(30 * MIB))
    with pytest.raises(DataError, match=r"file\.h5: the server does not serve ranges of bytes"):
        RemoteHdf5(url, cache).array("data")
    assert cache.counters.bytes == 0


def test_data_that_is_damaged_where_it_is_stored_is_an_error(server: FileServer, cache: RemoteCache) -> None:
    content = bytearray(one(**CHUNKS, fletcher32=True))
    with h5py.File(io.BytesIO(content), "r") as file:
        content[file["data"].id.get_chunk_info(0).byte_offset + 10] ^= 1
    array = RemoteHdf5(server.serve("file.h5", bytes(content)), cache).array("data")
    with pytest.raises(DataError, match=r"file\.h5: 'data' cannot be decoded; damaged"):
        array[0]
    assert np.array_equal(array[1], SMOOTH[1])


# Files that change


@pytest.mark.parametrize("known", ["etag", "time", "size"])
@pytest.mark.parametrize("limit", [0, MIB])
def test_a_file_that_changes_in_use_is_an_error_and_never_mixed(
    server: FileServer, tmp_path: Path, known: str, limit: int
) -> None:
    server.etags, server.times = known == "etag", known == "time"
    url = server.serve("file.h5", one(np.repeat(SMOOTH, 20, axis=0)))
    array = RemoteHdf5(url, cache_in(tmp_path, limit=limit)).array("data")
    array[0]
    server.serve("file.h5", one(np.repeat(SMOOTH + 1, 21 if known == "size" else 20, axis=0)))
    with pytest.raises(DataError, match=r"file\.h5: the file has changed while it was in use; .* start again"):
        array[99]


def test_a_file_that_changes_on_s3_is_an_error(bucket: Bucket, cache: RemoteCache) -> None:
    array = RemoteHdf5(put("s3://data/changing.h5", one()), cache).array("data")
    put("s3://data/changing.h5", one(SMOOTH + 1))
    with pytest.raises(DataError, match=r"s3://data/changing\.h5: the file has changed"):
        array[4]
    assert np.array_equal(RemoteHdf5("s3://data/changing.h5", cache).array("data")[4], SMOOTH[4] + 1)


def test_a_file_that_got_shorter_is_an_error(server: FileServer, cache: RemoteCache) -> None:
    server.etags = server.times = False
    content = one()
    array = RemoteHdf5(server.serve("file.h5", content), cache).array("data")
    server.serve("file.h5", content[:3000])
    with pytest.raises(DataError, match="the file has changed"):
        array[4]


def test_processes_do_not_read_different_versions(server: FileServer, cache: RemoteCache) -> None:
    file = RemoteHdf5(server.serve("file.h5", one()), cache)
    file.array("data")
    sent = pickle.dumps(file)
    server.serve("file.h5", one(SMOOTH + 1))
    with pytest.raises(DataError, match="the file has changed"):
        pickle.loads(sent).array("data")[0]


def test_a_stale_listing_does_not_make_a_file_look_changed(bucket: Bucket, cache: RemoteCache) -> None:
    put("s3://data/listed/one.h5", one())
    fsspec.filesystem("s3").glob("data/listed/*")
    client = fsspec.filesystem("s3", skip_instance_cache=True)
    client.pipe_file("data/listed/one.h5", one(SMOOTH + 1))
    assert np.array_equal(RemoteHdf5("s3://data/listed/one.h5", cache).array("data")[4], SMOOTH[4] + 1)


# Credentials


def test_credentials_reach_the_server_and_nothing_else(
    server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.password = "me:hush-hush"
    server.serve("file.h5", one())
    url = server.url("file.h5", "me:hush-hush@") + "?signature=hush-hush"
    file = RemoteHdf5(url, cache_in(tmp_path, limit=MIB))
    assert np.array_equal(file.array("data")[0], SMOOTH[0])
    file = RemoteHdf5(url, cache_in(tmp_path, retries=Retries(attempts=2, first=0.01)))
    said = [repr(file)]
    server.headers = {"Retry-After": "2"}  # long enough to be logged
    for address, faults in {url: [503, 403], f"{url}2": [503, 503], url.replace("file", "none"): []}.items():
        server.faults = list(faults)
        with pytest.raises(DataError) as raised:
            RemoteHdf5(address, file.cache).array("data")[0]
        said += traceback.format_exception(raised.value)
        assert raised.value.__context__ is None
    said.append(caplog.text)
    assert "HTTP 503" in caplog.text
    assert not any("hush" in words for words in said)
    for path in tmp_path.rglob("*"):
        assert "hush" not in str(path)
        assert path.is_dir() or b"hush" not in path.read_bytes()


def test_other_credentials_find_the_same_cache(server: FileServer, tmp_path: Path) -> None:
    server.serve("file.h5", one())
    RemoteHdf5(server.url("file.h5", "me:one@"), cache_in(tmp_path, limit=MIB)).array("data")[...]
    server.requests.clear()
    RemoteHdf5(server.url("file.h5", "me:two@"), cache_in(tmp_path, limit=MIB)).array("data")[...]
    assert [request.split()[0] for request in server.requests] == ["HEAD"]
