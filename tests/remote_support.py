"""Pieces that the tests of remote files share: content, servers, caches that wait shortly."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from opframe.files.cache import RemoteCache
from opframe.files.retries import Retries
from servers import Bucket

MIB = 2**20
RANDOM = np.random.default_rng(7)
SMOOTH = np.cumsum(RANDOM.normal(size=(5, 9, 17, 13, 2)), axis=1).astype("f4")
CHUNKS = {"chunks": (1, 4, 8, 8, 1)}


def hdf5(write: Callable[[h5py.File], object], **options: Any) -> bytes:
    """The content of a file."""
    content = io.BytesIO()
    with h5py.File(content, "w", **options) as file:
        write(file)
    return content.getvalue()


def one(data: NDArray[Any] = SMOOTH, **options: Any) -> bytes:
    """A file with the dataset `data`."""
    return hdf5(lambda file: file.create_dataset("data", data=data, **options))


def grouped(trajectories: int = 12) -> bytes:
    def write(file: h5py.File) -> None:
        for number in range(trajectories):
            file.create_dataset(
                f"{number:04}/data", data=SMOOTH[number % 5] + number, chunks=(4, 8, 8, 1), compression="lzf"
            )

    return hdf5(write)


def cache_in(folder: Path, **options: Any) -> RemoteCache:
    """A cache that keeps the index alone and waits shortly."""
    return RemoteCache(folder=folder, **{"limit": 0, "retries": Retries(attempts=4, first=0.01), **options})


def put(url: str, content: bytes) -> str:
    """Write a file through fsspec."""
    with fsspec.open(url, "wb") as file:
        file.write(content)
    return url


def use(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The bucket, emptied of news, with the settings of a person who uses a server other than Amazon's."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": bucket.endpoint})
    filesystem = fsspec.filesystem("s3")
    if not filesystem.exists("data"):
        filesystem.mkdir("data")
    bucket.requests.clear()
    bucket.faults.clear()
    return bucket
