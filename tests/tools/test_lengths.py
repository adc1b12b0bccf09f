"""What looks at data and prepares them takes trajectories of different lengths for what they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from rich.console import Console

from data_support import Command, command
from opframe.mixture.source import read_frames
from opframe.run.assembly import open_sources
from opframe.run.experiment import load_experiment
from opframe.tools import packed
from opframe.tools.audit import worthwhile_jobs
from opframe.tools.audit_report import channel_records
from opframe.tools.packing import pack
from opframe_registry import Catalog, DataError
from support import write_padded
from tests.tools.test_data_check import checked, remarks
from tests.tools.test_packing import pack_all, packings, with_packed

__all__ = ["command"]

LENGTHS = (7, 30, 4, 12, 9, 30)


@pytest.fixture
def ragged(experiment: Path) -> Path:
    """The small experiment, of whose first dataset the trajectories differ in length."""
    write_padded(experiment.parent / "one.h5", LENGTHS)
    return experiment


@pytest.mark.parametrize(
    ("overrides", "gzip"), [((), False), (("datasets.0.stride=2", "datasets.0.exclude=[0]"), False), ((), True)]
)
def test_packed_trajectories_give_the_same_windows_to_the_last_bit(
    ragged: Path, catalog: Catalog, overrides: tuple[str, ...], gzip: bool
) -> None:
    made = packings(ragged, catalog, *overrides, gzip=gzip)
    assert pack_all(made) == [True] * 4
    assert pack_all(packings(ragged, catalog, *overrides, gzip=gzip)) == [False] * 4
    before = open_sources(load_experiment(ragged, catalog, overrides))
    after = open_sources(load_experiment(with_packed(ragged, catalog, made), catalog))
    for old, new in zip((*before.train, *before.test), (*after.train, *after.test), strict=True):
        assert old.population(5) == new.population(5)
        for trajectory, starts in enumerate(old.population(5).starts):
            for start in range(starts):
                windows = [read_frames(source, trajectory, start, start + 5, before.fields) for source in (old, new)]
                assert torch.equal(*windows)


@pytest.mark.parametrize("gzip", [False, True])
def test_a_packed_file_says_how_long_trajectories_are_and_counts_nothing_behind_their_ends(
    ragged: Path, catalog: Catalog, gzip: bool
) -> None:
    data = write_padded(ragged.parent / "one.h5", LENGTHS)
    made = packings(ragged, catalog, "datasets.0.test=1", gzip=gzip)
    pack_all(made)
    with h5py.File(made[0].path) as file:
        assert file["lengths"][:].tolist() == [*LENGTHS[:5]]
        assert file["data"].shape == (5, 30, 1, 16, 16)
        if gzip:
            assert file["data"].id.get_num_chunks() == sum(LENGTHS[:5])
        runs = [np.moveaxis(run[:, :, :length], (2, 3), (0, 1)) for run, length in zip(data, LENGTHS[:5], strict=False)]
        for checksum, run in zip(file["checksums"][:], runs, strict=True):
            assert hashlib.blake2b(run.tobytes(), digest_size=16).digest() == checksum.tobytes()
        exact = np.concatenate([run.ravel() for run in runs]).astype("f8")
        found = [float(file[f"statistics/{name}"][0]) for name in packed.STATISTICS]
    assert found == pytest.approx([exact.mean(), exact.std(), exact.min(), exact.max()], rel=1e-9)
    with h5py.File(made[1].path) as file:  # of one trajectory
        assert "lengths" not in file


def test_bytes_that_changed_in_a_short_trajectory_are_found(ragged: Path, catalog: Catalog) -> None:
    packing = packings(ragged, catalog)[0]
    partial = packing.path.with_name("train.h5.partial")
    pack(packing, Console(quiet=True))
    packing.path.rename(partial)
    frame = 4 * 16 * 16
    begin = packed.places(partial).offsets["data"]
    with partial.open("r+b") as file:
        packed.put(file, begin + (2 * 30 + 3) * frame, np.float32([7.0]))  # the last of the four of trajectory 2
    with pytest.raises(DataError, match=r"trajectory 2 is read back otherwise than it was written"):
        pack(packing, Console(quiet=True))
    pack(packing, Console(quiet=True))
    packing.path.rename(partial)
    with partial.open("r+b") as file:
        packed.put(file, begin + (2 * 30 + 4) * frame, np.float32([7.0]))  # behind it
    pack(packing, Console(quiet=True))


def test_the_check_reads_every_trajectory_to_its_end(ragged: Path, catalog: Catalog) -> None:
    data = write_padded(ragged.parent / "one.h5", (7, 30, 0, 12, 9, 30))
    with h5py.File(ragged.parent / "one.h5", "r+") as file:
        file["data"][4, :, :, 1:9] = file["data"][4, :, :, :1]
        file["data"][3, 2, 5, 11] = np.inf
    audits = checked(ragged, catalog)
    assert remarks(audits["one", "train"]) == [
        (True, 2, "there are no frames in it"),
        (True, 3, "1 value is not finite; the first is inf in frame 11, channel 'c0', point (2, 5)"),
    ]
    assert remarks(audits["one", "test"]) == [(True, 0, "all 9 frames are the same")]
    (found,) = channel_records(audits["one", "train"])
    values = [data[0, ..., :7, 0].astype("f8"), data[1, ..., :30, 0].astype("f8")]
    whole = np.concatenate([run.ravel() for run in values])
    first, last = (np.stack([run[..., frame] for run in values]) for frame in (0, -1))
    expected = {
        "mean": whole.mean(),
        "std": whole.std(),
        "drift": (last.mean() - first.mean()) / whole.std(),
        "growth": last.std() / first.std(),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert worthwhile_jobs([audits["one", "train"].part], 4) == 1


def test_info_says_from_the_shortest_to_the_longest(ragged: Path, command: Command) -> None:
    words = " ".join(command("data", "info", ragged).stdout.split())
    assert "train 4 trajectories of 4 to 30 frames, 37 windows of 5, 54.3 kB as float32" in words
    assert "test 2 trajectories of 9 to 30 frames, 31 windows of 5, 39.9 kB as float32" in words
    assert "6 trajectories of 4 to 30 frames on 16 x 16" in " ".join(
        command("data", "info", ragged.parent / "one.h5").stdout.split()
    )
