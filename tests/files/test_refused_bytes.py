"""Servers that send wrong bytes as if they were right: what is refused is fetched anew, and never kept."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from data_support import Command, command
from opframe.files.cache import remote_cache
from opframe.files.refusal import once_more
from opframe.files.retries import Retries
from opframe.mixture.source import Source, open_dataset, read_finite
from opframe.readers.contents import gather
from opframe.readers.stores import Stores
from opframe.tools.health import examine
from opframe_registry import Catalog, DataError, Dataset
from remote_support import CHUNKS, SMOOTH, one
from servers import FileServer
from support import EXPERIMENT, waves, write_prepared

__all__ = ["command"]


@pytest.fixture(autouse=True)
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Calling it makes this process as one that has just begun, with what is kept on disk."""
    monkeypatch.setenv("OPFRAME_CACHE", str(tmp_path / "cache"))

    def new() -> None:
        remote_cache.cache_clear()
        monkeypatch.setattr(remote_cache(), "retries", Retries(attempts=2, first=0.01))

    new()
    yield new
    remote_cache.cache_clear()


def npy() -> bytes:
    content = io.BytesIO()
    np.save(content, SMOOTH)
    return content.getvalue()


FILES = {
    "gzip.h5": one(**CHUNKS, compression="gzip"),
    "checksums.h5": one(**CHUNKS, fletcher32=True),
    "own.npy": npy(),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_comes_damaged_once_is_read_all_the_same(server: FileServer, name: str) -> None:
    url = server.serve(name, FILES[name])
    server.faults = ["garbage"]
    array = Stores().array(url, "" if name.endswith("npy") else "data")
    assert np.array_equal(array[2, 3:6], SMOOTH[2, 3:6])
    if name.endswith("h5"):  # numbers that are not finite are refused by those who know that they must be
        shutil.rmtree(remote_cache().folder / "blocks")
        server.faults = ["garbage"]
        assert np.array_equal(array[4], SMOOTH[4])
    assert server.faults == []


def test_a_checksum_that_comes_with_the_bytes_is_verified(server: FileServer) -> None:
    array = Stores().array(server.serve("own.npy", FILES["own.npy"]), "")
    shutil.rmtree(remote_cache().folder / "blocks")
    server.digests, server.faults = True, ["garbage"]
    assert np.array_equal(array[4], SMOOTH[4])  # nobody says that these numbers must be finite
    assert (server.faults, remote_cache().counters.retries) == ([], 1)


def damaged(content: bytes) -> bytes:
    """A file whose first chunk is not what was written."""
    changed = bytearray(content)
    with h5py.File(io.BytesIO(content), "r") as file:
        chunk = file["data"].id.get_chunk_info(0)
    for place in range(chunk.byte_offset + 10, chunk.byte_offset + chunk.size):
        changed[place] ^= 0x55
    return bytes(changed)


@pytest.mark.parametrize("name", ["gzip.h5", "checksums.h5"])
def test_of_chunks_that_cannot_be_decoded_nothing_is_kept(
    server: FileServer, begin: Callable[[], None], name: str
) -> None:
    url = server.serve(name, FILES[name])
    server.files[f"/{name}"] = damaged(FILES[name])  # with the ETag of the right one
    array = Stores().array(url, "data")
    with pytest.raises(DataError, match=rf"{name}: 'data' cannot be decoded; damaged"):
        array[0]
    server.files[f"/{name}"] = FILES[name]
    assert np.array_equal(array[0], SMOOTH[0])
    begin()
    assert np.array_equal(Stores().array(url, "data")[0], SMOOTH[0])


@pytest.mark.parametrize("name", ["gzip.h5", "own.npy"])
def test_of_headers_that_are_none_nothing_is_kept(server: FileServer, begin: Callable[[], None], name: str) -> None:
    url = server.serve(name, FILES[name])
    for wrong in (b"\xff" * len(FILES[name]), FILES[name][:60] + bytes(len(FILES[name]) - 60)):
        shutil.rmtree(remote_cache().folder, ignore_errors=True)
        begin()
        server.files[f"/{name}"] = wrong  # with the length and the ETag of the right one
        with pytest.raises(DataError):
            gather(url)
        server.files[f"/{name}"] = FILES[name]
        begin()
        assert list(gather(url).values()) == [SMOOTH.shape]


def test_of_a_matlab_array_that_is_refused_nothing_is_kept(server: FileServer, begin: Callable[[], None]) -> None:
    values = np.linspace(0.0, 1.0, 20_000).reshape(100, 200)
    right, wrong = io.BytesIO(), io.BytesIO()
    savemat(right, {"u": values})
    savemat(wrong, {"u": np.full_like(values, np.nan)})
    url = server.serve("own.mat", right.getvalue())
    server.files["/own.mat"] = wrong.getvalue()  # with the length and the ETag of the right one
    assert len(right.getvalue()) == len(wrong.getvalue())

    def judged() -> NDArray[np.float64]:
        return once_more(lambda: Stores().array(url, "u")[3], lambda row: bool(np.isfinite(row).all()))

    assert np.isnan(judged()).all()
    server.files["/own.mat"] = right.getvalue()
    begin()
    assert np.array_equal(judged(), values[3])


def prepared(catalog: Catalog, url: str) -> Source:
    trajectories = open_dataset(catalog.get(Dataset, "prepared")(url=url), "test", Path())
    return Source(title="prepared", weight=1.0, rollout=1, trajectories=trajectories)


def test_values_that_are_not_finite_are_believed_when_they_came_twice(
    server: FileServer, catalog: Catalog, tmp_path: Path, begin: Callable[[], None]
) -> None:
    data = waves(4, 9, 16)
    content = write_prepared(tmp_path / "data.h5", data).read_bytes()
    wrong = content.replace(data[1].tobytes(), np.full_like(data[1], np.nan).tobytes())
    url = server.serve("data.h5", content)
    source = prepared(catalog, url)
    shutil.rmtree(remote_cache().folder / "blocks")
    server.requests.clear()
    server.faults = ["garbage"]
    assert np.array_equal(read_finite(source, 1, 2, 5)[:, 0], np.moveaxis(data[1, ..., 2:5, 0], -1, 0))
    assert server.faults == []
    server.files["/data.h5"] = wrong
    begin()
    shutil.rmtree(remote_cache().folder / "blocks")
    with pytest.raises(DataError, match="trajectory 1 holds nan in frame 2"):
        read_finite(source, 1, 2, 5)
    server.files["/data.h5"] = content
    begin()
    assert np.isfinite(read_finite(prepared(catalog, url), 1, 2, 5)).all()
    shutil.rmtree(remote_cache().folder / "blocks")
    server.faults = ["garbage"]
    assert examine(source.trajectories, 1).not_finite == 0
    server.serve("data.h5", wrong)
    assert examine(prepared(catalog, url).trajectories, 1).not_finite == data[1].size


def test_a_run_goes_on_when_the_server_has_recovered(
    server: FileServer, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    right = write_prepared(tmp_path / "one.h5", waves(6, 12, 16)).read_bytes()
    wrong = write_prepared(tmp_path / "one.h5", waves(6, 12, 16) * np.float32(np.nan)).read_bytes()
    config = tmp_path / "experiment.toml"
    config.write_text(EXPERIMENT.replace('url = "one.h5"', f'url = "{server.serve("one.h5", right)}"'))
    write_prepared(tmp_path / "two.h5", waves(6, 10, 16, channels=2))
    assert command("run", config, "--stop-at", 4).returncode == 0
    shutil.rmtree(tmp_path / "cache" / "remote")
    server.files["/one.h5"] = wrong  # with the length and the ETag of the right one
    broken = command("run", config, "--resume")
    assert (broken.returncode, "holds nan in frame" in " ".join(broken.stderr.split())) == (2, True)
    server.files["/one.h5"] = right
    again = command("run", config, "--resume")
    assert again.returncode == 0, again.stderr
