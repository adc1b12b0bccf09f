"""The FNO authors' MATLAB files are read as published, new format and old, with x and y where they belong."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import loadmat, savemat

from opframe.mixture.source import open_source, read_frames
from opframe.readers.contents import gather
from opframe_registry import Catalog, DataError, Dataset, Fields, Trajectories
from opframe_registry.metadata import boundary_in_words

FILES = Path(__file__).parents[1] / "layouts" / "fno"
NEW = FILES / "fno_ns_V1e-3_N3_T4_v73.mat"
OLD = FILES / "fno_ns_V1e-4_N3_T4.mat"


def opened(catalog: Catalog, url: Path | str, split: str = "test", **keys: object) -> Trajectories:
    return catalog.get(Dataset, "fno_mat")(url=str(url), **keys).build(split, Path())


def published(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Initial fields (N, X, Y) and frames (N, T, X, Y), from the whole arrays."""
    if path == OLD:
        arrays = loadmat(path)
        return arrays["a"], np.moveaxis(arrays["u"], -1, 1)
    with h5py.File(path) as file:
        return np.transpose(file["a"][...]), np.moveaxis(np.transpose(file["u"][...]), -1, 1)


def assert_windows(trajectories: Trajectories, expected: NDArray[np.float32]) -> None:
    """All windows of all trajectories, (N, T, X, Y)."""
    count, frames = expected.shape[:2]
    metadata = trajectories.metadata
    assert (metadata.trajectories, metadata.frames, metadata.grid) == (count, frames, expected.shape[2:])
    for trajectory in range(count):
        for start in range(frames):
            for stop in range(start + 1, frames + 1):
                window = trajectories.read(trajectory, start, stop)
                assert window.dtype == np.float32
                assert np.array_equal(window, expected[trajectory, start:stop, None])


def write_new(path: Path, arrays: Mapping[str, Any]) -> Path:
    """As MATLAB 7.3 does: HDF5 behind 512 bytes of its own, all axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            file[name] = np.transpose(values)
    with path.open("r+b") as file:
        file.write(NEW.read_bytes()[:512])
    return path


def fields(**changes: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
    """What a file holds, in MATLAB's order of axes."""
    u = np.arange(2 * 3 * 5 * 4, dtype="f4").reshape(2, 3, 5, 4)
    arrays = {"a": u[..., 0] - 1, "u": u, "t": np.array([[1.0, 2.0, 3.0, 4.0]]), **changes}
    return {name: values for name, values in arrays.items() if values is not None}


@pytest.mark.parametrize("path", [NEW, OLD])
def test_every_window_is_that_of_the_published_array(catalog: Catalog, path: Path) -> None:
    initial, frames = published(path)
    assert frames.shape == (3, 4, 16, 12)
    assert_windows(opened(catalog, path), frames)
    assert_windows(opened(catalog, path, initial=True), np.concatenate([initial[:, None], frames], axis=1))


def test_both_formats_of_the_same_fields_are_read_alike(catalog: Catalog, tmp_path: Path) -> None:
    new = write_new(tmp_path / "new.mat", fields())
    savemat(tmp_path / "old.mat", fields())
    for path in (new, tmp_path / "old.mat"):
        assert_windows(opened(catalog, path), np.moveaxis(fields()["u"], -1, 1))


@pytest.mark.parametrize(("path", "viscosity"), [(NEW, 1e-3), (OLD, 1e-4)])
def test_what_is_known_of_the_flow_is_told(catalog: Catalog, path: Path, viscosity: float) -> None:
    metadata = opened(catalog, path).metadata
    assert metadata.channels == metadata.predicted == ("vorticity",)
    assert metadata.parameters == {"viscosity": (viscosity,)}
    assert (metadata.time_step, metadata.spacing) == (1.0, (1 / 16, 1 / 12))
    assert boundary_in_words(metadata.boundary) == "periodic"
    assert metadata.conserved == {"circulation": ("vorticity",)}
    assert "Li et al., 2021" in metadata.source


@pytest.mark.parametrize(
    ("name", "viscosity"), [("NavierStokes_V1e-5_N1200_T20.mat", 1e-5), ("ns_V0.001.mat", 1e-3), ("V.mat", None)]
)
def test_the_viscosity_is_read_from_the_name_if_it_is_there(
    catalog: Catalog, tmp_path: Path, name: str, viscosity: float | None
) -> None:
    metadata = opened(catalog, write_new(tmp_path / name, fields())).metadata
    assert metadata.parameters == ({} if viscosity is None else {"viscosity": (viscosity,)})


@pytest.mark.parametrize("path", [NEW, OLD])
def test_training_takes_the_first_trajectories_and_evaluation_the_last(catalog: Catalog, path: Path) -> None:
    _, frames = published(path)
    train, test = opened(catalog, path, "train", test=1), opened(catalog, path, "test", test=1)
    assert_windows(train, frames[:2])
    assert_windows(test, frames[2:])
    assert (train.metadata.split, test.metadata.split) == (
        "the first 2 of 3 trajectories",
        "the last 1 of 3 trajectories",
    )
    initial = opened(catalog, path, "test", test=1, initial=True)
    assert np.array_equal(initial.read(0, 0, 1)[0, 0], published(path)[0][2])


def test_splits_in_files_of_their_own_are_taken_whole(catalog: Catalog, tmp_path: Path) -> None:
    write_new(tmp_path / "ns_train.mat", fields())
    write_new(tmp_path / "ns_test.mat", fields(u=-fields()["u"]))
    url = tmp_path / "ns_{split}.mat"
    assert opened(catalog, url, "train").read(1, 3, 4).max() > 0
    assert opened(catalog, url, "test").read(1, 3, 4).max() < 0


@pytest.mark.parametrize("path", [NEW, OLD])
@pytest.mark.parametrize("initial", [False, True])
def test_opened_trajectories_travel_to_another_process(catalog: Catalog, path: Path, initial: bool) -> None:
    trajectories = opened(catalog, path, initial=initial)
    before = trajectories.read(2, 0, 3)
    assert np.array_equal(pickle.loads(pickle.dumps(trajectories)).read(2, 0, 3), before)


@pytest.mark.parametrize("path", [NEW, OLD])
def test_a_remote_file_gives_the_same(catalog: Catalog, path: Path) -> None:
    with fsspec.open(f"memory://fno/{path.name}", "wb") as file:
        file.write(path.read_bytes())
    assert_windows(opened(catalog, f"memory://fno/{path.name}"), published(path)[1])


def test_the_mixture_reads_it(catalog: Catalog) -> None:
    component = catalog.get(Dataset, "fno_mat")(url=str(NEW), test=1, initial=True)
    source = open_source(component, component.build("train", Path()), history=3, frames=2)
    frames = read_frames(source, 1, 0, 5, Fields(channels=("vorticity",), grid=(16, 12), history=3))
    assert np.array_equal(frames[1:, 0], published(NEW)[1][1])


def test_its_layout_is_recognised_and_others_are_not(catalog: Catalog) -> None:
    recognise = catalog.get(Dataset, "fno_mat").recognise
    new = {"a": (64, 64, 5000), "t": (50, 1), "u": (50, 64, 64, 5000)}
    old = {"a": (1200, 64, 64), "t": (1, 20), "u": (1200, 64, 64, 20)}
    assert recognise("s3://b/ns.mat", new) == {"url": "s3://b/ns.mat"}
    assert recognise("ns.MAT", old) == {"url": "ns.MAT"}
    assert recognise("ns.h5", new) is None
    assert recognise("burgers.mat", {"a": (2048, 8192), "u": (2048, 8192)}) is None
    assert recognise("other.mat", {}) is None


def test_axes_in_another_order_are_an_error_and_not_other_data(catalog: Catalog, tmp_path: Path) -> None:
    straight = write_new(tmp_path / "straight.mat", {name: np.transpose(values) for name, values in fields().items()})
    with pytest.raises(DataError, match=r"straight\.mat: found a \(2, 3, 5\), t .*expected u \(T, Y, X, N\)"):
        opened(catalog, straight)
    savemat(tmp_path / "turned.mat", fields(u=np.moveaxis(fields()["u"], -1, 1), a=None))
    with pytest.raises(DataError, match=r"found u \(2, 4, 3, 5\), t .*expected u \(N, X, Y, T\)"):
        opened(catalog, tmp_path / "turned.mat")
    savemat(tmp_path / "burgers.mat", {"a": np.zeros((3, 8)), "u": np.zeros((3, 8))})
    with pytest.raises(DataError, match=r"found a \(3, 8\), u \(3, 8\); expected"):
        opened(catalog, tmp_path / "burgers.mat")
    savemat(tmp_path / "darcy.mat", {"coeff": np.zeros((3, 8, 8))})
    with pytest.raises(DataError, match=r"darcy\.mat: has no array 'u'; found: coeff \(3, 8, 8\)"):
        opened(catalog, tmp_path / "darcy.mat")


def test_an_initial_field_that_is_not_one_step_before_the_first_frame_is_an_error(
    catalog: Catalog, tmp_path: Path
) -> None:
    late = write_new(tmp_path / "late.mat", fields(t=np.array([[5.0, 6.0, 7.0, 8.0]])))
    assert opened(catalog, late).metadata.time_step == 1.0
    with pytest.raises(DataError, match="the initial field is 5 before the first frame and frames are 1 apart"):
        opened(catalog, late, initial=True)
    with pytest.raises(DataError, match="initial = true, but there is no array 'a'; found: t"):
        opened(catalog, write_new(tmp_path / "none.mat", fields(a=None)), initial=True)
    with pytest.raises(DataError, match=r"frames 0\.\.6 asked for, but there are 5"):
        opened(catalog, NEW, initial=True).read(0, 0, 6)


@pytest.mark.parametrize("path", [NEW, OLD])
@pytest.mark.parametrize("length", [0, 60, 0.1, 0.5, 0.98])
def test_a_truncated_file_gives_a_message_and_no_data(
    catalog: Catalog, tmp_path: Path, path: Path, length: float
) -> None:
    whole = path.read_bytes()
    short = tmp_path / path.name
    short.write_bytes(whole[: int(length * len(whole) if length < 1 else length)])
    with pytest.raises(DataError, match=f"{path.name}: "):
        opened(catalog, short).read(2, 0, 4)


@pytest.mark.parametrize("compressed", [False, True])
def test_the_old_format_is_mapped_from_one_copy_and_not_read_whole_again(
    catalog: Catalog, tmp_path: Path, compressed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    u = np.arange(8 * 64 * 64 * 16, dtype="f4").reshape(8, 64, 64, 16)
    path = tmp_path / f"ns_{compressed}.mat"
    savemat(path, {"u": u, "t": np.arange(1.0, 17)}, do_compression=compressed)
    trajectories = opened(catalog, path)
    assert "is written once to" not in caplog.text  # to look at its header nothing is copied
    copies = [pickle.loads(pickle.dumps(trajectories)) for _ in range(3)]
    for one in (trajectories, *copies):
        assert np.array_equal(one.read(5, 3, 7)[:, 0], np.moveaxis(u[5, ..., 3:7], -1, 0))
    mapped = (line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines())
    maps = {file for file in mapped if Path(file).name.startswith(path.stem)}
    assert len(maps) == 1  # all of them share one
    assert caplog.text.count("is written once to") == 1
    [copy] = maps
    assert copy in caplog.text
    stored = np.load(copy, mmap_mode="r")
    assert stored.flags.f_contiguous  # as in the file: a window of a trajectory is as near together
    assert np.array_equal(stored, u)


def test_a_changed_file_of_the_old_format_is_unpacked_again(catalog: Catalog, tmp_path: Path) -> None:
    noise, sizes = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 16), dtype="u1"), set()
    for u in (noise, noise[::-1]):
        savemat(tmp_path / "ns.mat", {"u": u}, do_compression=True)
        sizes.add((tmp_path / "ns.mat").stat().st_size)
        assert_windows(opened(catalog, tmp_path / "ns.mat"), np.moveaxis(u, -1, 1).astype("f4"))
    assert len(sizes) == 1


def test_threads_unpack_a_file_once(catalog: Catalog, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    u = np.random.default_rng(0).normal(size=(64, 32, 32, 4)).astype("f4")
    savemat(tmp_path / "ns.mat", {"u": u}, do_compression=True)
    trajectories = opened(catalog, tmp_path / "ns.mat")

    def read(_: int) -> bool:
        window = pickle.loads(pickle.dumps(trajectories)).read(1, 0, 4)
        return np.array_equal(window[:, 0], np.moveaxis(u[1], -1, 0))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(16)))
    assert caplog.text.count("is written once to") == 1
    assert not list(Path(os.environ["OPFRAME_CACHE"]).glob("matlab/*.[0-9]*"))


def test_a_folder_without_room_is_named_with_the_way_out(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("OPFRAME_CACHE", str(tmp_path / "file"))
    savemat(tmp_path / "ns.mat", {"u": np.zeros((2, 64, 64, 16))}, do_compression=True)
    with pytest.raises(DataError, match=r"ns\.mat: 'u' cannot be written to .*let OPFRAME_CACHE name a folder"):
        opened(catalog, tmp_path / "ns.mat").read(0, 0, 1)


def test_numbers_of_other_types_and_what_is_no_array_do_not_disturb(catalog: Catalog, tmp_path: Path) -> None:
    around = {"words": "as text", "cells": np.array([[1, 2]], dtype=object), "z": np.array([1j]), "one": np.int8(3)}
    for kind in ("f8", "i2", "u1"):
        u = (np.arange(2 * 3 * 5 * 4) % 200).reshape(2, 3, 5, 4).astype(kind)
        savemat(tmp_path / f"{kind}.mat", {**around, "u": u, "flow": {"u": 1.0}}, do_compression=kind == "i2")
        trajectories = opened(catalog, tmp_path / f"{kind}.mat")
        assert_windows(trajectories, np.moveaxis(u, -1, 1).astype("f4"))
        assert trajectories.metadata.time_step is None
    assert gather(str(tmp_path / "u1.mat")) == {"z": (1, 1), "one": (1, 1), "u": (2, 3, 5, 4)}


def test_complex_fields_are_not_read_as_real_ones(catalog: Catalog, tmp_path: Path) -> None:
    savemat(tmp_path / "waves.mat", fields(u=fields()["u"] + 1j))
    with pytest.raises(DataError, match=r"waves\.mat: 'u' holds complex64, expected real numbers"):
        opened(catalog, tmp_path / "waves.mat").read(0, 0, 1)


def test_files_of_machines_with_the_other_order_of_bytes_are_read(catalog: Catalog, tmp_path: Path) -> None:
    def element(kind: int, content: bytes) -> bytes:
        return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)

    u = fields()["u"]
    numbers = u.astype(">f4").tobytes(order="F")
    parts = element(6, struct.pack(">II", 7, 0)) + element(5, struct.pack(">4i", *u.shape)) + element(1, b"u")
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    (tmp_path / "big.mat").write_bytes(head + element(14, parts + element(7, numbers)))
    assert_windows(opened(catalog, tmp_path / "big.mat"), np.moveaxis(u, -1, 1))


def test_damage_within_a_compressed_array_is_an_error_and_leaves_nothing_behind(
    catalog: Catalog, tmp_path: Path
) -> None:
    u = np.random.default_rng(0).normal(size=(3, 33, 31, 3)).astype("f4")  # an odd number: four bytes fill it up
    savemat(tmp_path / "ns.mat", {"u": u}, do_compression=True)
    content = bytearray((tmp_path / "ns.mat").read_bytes())
    for place in (len(content) // 2, len(content) - 1):
        damaged = content.copy()
        damaged[place] ^= 1
        (tmp_path / f"ns_{place}.mat").write_bytes(damaged)
        for _ in range(2):
            with pytest.raises(DataError, match=rf"ns_{place}\.mat: cannot be read as a MATLAB file"):
                opened(catalog, tmp_path / f"ns_{place}.mat").read(0, 0, 1)


def test_the_oldest_format_is_looked_into_too(catalog: Catalog, tmp_path: Path) -> None:
    savemat(tmp_path / "four.mat", {"u": np.zeros((3, 4))}, format="4")  # it has matrices alone
    with pytest.raises(DataError, match=r"four\.mat: found u \(3, 4\); expected u \(N, X, Y, T\)"):
        opened(catalog, tmp_path / "four.mat")
