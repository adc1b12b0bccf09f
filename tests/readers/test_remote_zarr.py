"""Zarr groups behind servers that fail: right data or an error, over HTTP and in a bucket."""

from __future__ import annotations

import warnings
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr

from opframe.files.cache import remote_cache
from opframe.files.refusal import once_more
from opframe.files.retries import Retries
from opframe.readers.contents import gather
from opframe.readers.stores import Stores
from opframe_registry import DataError
from servers import Bucket, FileServer

DATA = np.random.default_rng(3).normal(size=(4, 6, 8, 8)).astype("f4")
Faults = list[int | str]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_cache(), "retries", Retries(attempts=4, first=0.01))


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A group whose metadata stand once, of an array of chunks, and one of chunks that hold several."""
    path = tmp_path_factory.mktemp("zarr") / "own.zarr"
    opened = zarr.open_group(str(path), mode="w")
    opened.create_array("u", data=DATA, chunks=(1, 3, 8, 8))
    opened.create_array("sharded", data=DATA, chunks=(1, 2, 8, 8), shards=(2, 6, 8, 8))
    with warnings.catch_warnings(action="ignore"):  # of a format that other packages may not know
        zarr.consolidate_metadata(str(path))
    return path


@pytest.mark.parametrize("faults", [[503, 503], [429], ["drop"] * 4, ["truncate"], ["short"], ["short", 500]], ids=str)
@pytest.mark.parametrize("name", ["u", "sharded"])
def test_a_failure_that_passes_gives_the_right_data(server: FileServer, group: Path, faults: Faults, name: str) -> None:
    url = server.put(group, "own.zarr")
    server.faults = list(faults)  # while the metadata are read
    array, before = Stores().array(url, name), remote_cache().counters
    server.faults = list(faults)
    assert np.array_equal(array[1, 2:5], DATA[1, 2:5])
    assert server.faults == []
    counted = remote_cache().counters - before
    assert counted.requests >= 2
    assert counted.bytes > 2 * DATA[0, :2].nbytes
    assert counted.retries >= 1 or "short" in faults


def test_chunks_that_cannot_be_decoded_are_fetched_anew(server: FileServer, group: Path) -> None:
    array = Stores().array(server.put(group, "own.zarr"), "u")
    server.faults = ["garbage"]
    assert np.array_equal(once_more(lambda: array[0, :3]), DATA[0, :3])


def test_a_failure_that_stays_is_an_error_and_not_values_that_were_never_written(
    server: FileServer, group: Path
) -> None:
    url = server.put(group, "own.zarr")
    array = Stores().array(url, "u")
    server.faults = [503] * 8
    with pytest.raises(DataError, match=r"own\.zarr/u/c/2/0/0/0: HTTP 503 Service Unavailable; tried 4 times"):
        array[2, :3]
    server.faults = [503] * 8
    with pytest.raises(DataError, match=r"own\.zarr.*: HTTP 503 Service Unavailable; tried 4 times"):
        gather(url)


def test_a_bucket_that_is_overloaded_for_a_while_gives_the_right_data(
    bucket: Bucket, group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"endpoint_url": bucket.endpoint, "config_kwargs": {"retries": {"max_attempts": 0}}}
    monkeypatch.setitem(fsspec.config.conf, "s3", settings)  # of which botocore itself would make nothing
    fsspec.filesystem("s3").put(str(group), "data/own.zarr", recursive=True)
    bucket.faults = [500, 503]
    assert gather("s3://data/own.zarr") == {"u": DATA.shape, "sharded": DATA.shape}
    assert bucket.faults == []
    array = Stores().array("s3://data/own.zarr", "sharded")
    bucket.faults = [503, 503]
    assert np.array_equal(array[3, 1:4], DATA[3, 1:4])
    assert bucket.faults == []
