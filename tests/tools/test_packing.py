"""`opframe data pack`: the same numbers in the order of reading, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import attrs
import h5py
import numpy as np
import pytest
import tomli_w
import torch
from numpy.typing import NDArray
from rich.console import Console

from opframe.mixture.source import read_frames, read_known
from opframe.readers.stores import Hdf5Store
from opframe.run.assembly import open_sources
from opframe.run.experiment import load_experiment
from opframe.tools import packed
from opframe.tools import packing as packing_module
from opframe.tools.packing import pack
from opframe.tools.packing_plan import Packing, plan, tables
from opframe.tools.selection import load_selection, open_part, splits
from opframe_registry import Catalog, ConfigError, DataError, Dataset
from opframe_registry.metadata import boundary_in_words
from support import waves, write_prepared
from weights_support import Call


def packings(
    config: Path, catalog: Catalog, *overrides: str, resize: bool = False, gzip: bool = False
) -> list[Packing]:
    selection = load_selection(config, catalog, overrides)
    parts = [open_part(component, split, selection) for component, split in splits(selection)]
    grid = selection.data.grid if resize and selection.data else None
    return plan(parts, config.parent / "packed", grid, gzip)


def pack_all(made: Sequence[Packing]) -> list[bool]:
    return [pack(packing, Console(quiet=True)) for packing in made]


def with_packed(config: Path, catalog: Catalog, made: Sequence[Packing]) -> Path:
    """A config that reads the packed files, written as the command prints it."""
    whole = tomllib.loads(config.read_text())
    whole["datasets"] = tables(made, str(config.parent / "packed"))
    path = config.parent / "with_packed.toml"
    path.write_text(tomli_w.dumps(whole))
    return path


@pytest.mark.parametrize(
    ("overrides", "resize", "gzip"),
    [
        ((), False, False),
        (("datasets.0.stride=2", "datasets.1.exclude=[1, 2]"), False, False),
        (("data.grid=[24, 32]",), True, False),
        (("data.grid=[8, 8]", "data.resize=average"), True, False),
        ((), False, True),
    ],
)
def test_packed_data_train_and_evaluate_the_same_to_the_last_bit(
    experiment: Path, catalog: Catalog, overrides: tuple[str, ...], resize: bool, gzip: bool
) -> None:
    made = packings(experiment, catalog, *overrides, resize=resize, gzip=gzip)
    assert pack_all(made) == [True] * 4
    grid = [override for override in overrides if override.startswith("data.")]
    before = open_sources(load_experiment(experiment, catalog, overrides))
    after = open_sources(load_experiment(with_packed(experiment, catalog, made), catalog, grid))
    assert before.fields == after.fields
    for old, new in zip((*before.train, *before.test), (*after.train, *after.test), strict=True):
        assert (old.weight, old.rollout, old.population(5)) == (new.weight, new.rollout, new.population(5))
        for trajectory in range(old.metadata.trajectories):
            windows = [read_frames(source, trajectory, 1, 6, before.fields) for source in (old, new)]
            assert torch.equal(*windows)


def test_test_data_keep_their_grid_so_that_errors_are_measured_on_it(experiment: Path, catalog: Catalog) -> None:
    made = packings(experiment, catalog, "data.grid=[32, 32]", resize=True)
    assert [packing.metadata.grid for packing in made] == [(32, 32), (16, 16)] * 2


def test_a_window_of_a_packed_file_is_one_run_of_bytes(experiment: Path, catalog: Catalog) -> None:
    made = packings(experiment, catalog)
    pack_all(made)
    array = Hdf5Store(str(made[2].path)).array("data")
    assert isinstance(array, np.ndarray)
    assert array[1:2, 2:7].flags.c_contiguous
    assert array.shape == (4, 10, 2, 16, 16)


def test_what_the_data_are_is_in_the_file(experiment: Path, catalog: Catalog) -> None:
    names = {"channels": ["w"], "units": ["1/s"], "spacing": [0.5, 0.25], "time_step": 0.1, "boundary": "periodic"}
    with h5py.File(experiment.parent / "one.h5", "r+") as file:
        file["data"].attrs.update({**names, "source": "a paper", "license": "MIT"})
        file["parameters/viscosity"] = np.linspace(1e-4, 1e-3, 6)
    made = packings(
        experiment, catalog, "datasets.0.exclude=[1]", "datasets.0.stride=2", "data.grid=[32, 32]", resize=True
    )
    pack_all(made[:2])
    opened = catalog.get(Dataset, "prepared")(url=str(experiment.parent / "packed" / "one" / "{split}.h5"))
    metadata = opened.build("train", Path()).metadata
    expected = attrs.evolve(made[0].metadata, split=metadata.split)
    assert metadata == expected
    assert (metadata.time_step, metadata.spacing, metadata.units) == (0.2, (0.25, 0.125), ("1/s",))
    assert metadata.parameters["viscosity"] == pytest.approx([1e-4, 4.6e-4, 6.4e-4])


@pytest.mark.parametrize(("missing", "gzip"), [(np.nan, False), (-999.0, True)])
def test_missing_values_and_what_is_known_travel_with_the_data(
    experiment: Path, catalog: Catalog, missing: float, gzip: bool
) -> None:
    """At the size of before, and resized: what is missing is as it is where the data are resized when they are read."""
    data = waves(6, 10, 16, channels=2) + 3
    data[:, 3:5, 4:9], data[1, 9, 9, 4, 1], data[2] = missing, missing, missing
    path = write_prepared(experiment.parent / "two.h5", data)
    said = {"vectors": '[["c0", "c1"]]', "conserved": '{"mass": ["c0"]}', "missing": missing}
    with h5py.File(path, "r+") as file:
        file["data"].attrs.update({**said, "boundary": ["wall to open", "periodic"]})
    for grid in ([16, 16], [24, 32]):
        override = f"data.grid={grid}"
        made = packings(experiment, catalog, override, resize=True, gzip=gzip)
        pack_all(made)
        before = open_sources(load_experiment(experiment, catalog, [override]))
        after = open_sources(load_experiment(with_packed(experiment, catalog, made), catalog, [override]))
        old, new = before.train[1], after.train[1]
        for name in ("vectors", "conserved", "boundary"):
            assert getattr(old.metadata, name) == getattr(new.metadata, name) != ()
        assert repr(old.metadata.missing) == repr(new.metadata.missing) == repr(float(missing))
        for trajectory in range(old.metadata.trajectories):
            windows, known = zip(*(read_known(one, trajectory, 1, 6, before.fields) for one in (old, new)), strict=True)
            assert torch.equal(*known)
            assert torch.equal(*windows)
        with h5py.File(made[2].path) as file:
            values = np.moveaxis(file["data"][:], 2, 0).reshape(2, -1).astype("f8")
            found = {name: file[f"statistics/{name}"][:] for name in packed.STATISTICS}
        for channel, own in enumerate(values):
            there = own[~np.isnan(own)] if np.isnan(missing) else own[own != missing]
            assert 0 < len(there) < len(own)
            assert found["mean"][channel] == pytest.approx(there.mean(), rel=1e-10)
            assert found["std"][channel] == pytest.approx(there.std(), rel=1e-9)
            assert (found["min"][channel], found["max"][channel]) == (there.min(), there.max())
        shutil.rmtree(experiment.parent / "packed")


def test_boundaries_in_older_words_are_read(experiment: Path, catalog: Catalog) -> None:
    prepared = catalog.get(Dataset, "prepared")(url=str(experiment.parent / "one.h5"))
    for words, meant in (
        ("closed", "wall"),
        ("x wall, y periodic", "x wall, y periodic"),
        ("x open/wall, y open", "x unknown, y open"),
        ("walls and inflow", "unknown"),
        ("whatever", "unknown"),
        ("fixed value left, mixed right", "unknown"),
    ):
        with h5py.File(experiment.parent / "one.h5", "r+") as file:
            file["data"].attrs["boundary"] = words
        assert boundary_in_words(prepared.build("test", Path()).metadata.boundary) == meant


@pytest.mark.parametrize("said", ['[["c0", "w"]]', "no JSON", "[1]"])
def test_groups_of_channels_that_are_none_are_named(experiment: Path, catalog: Catalog, said: str) -> None:
    with h5py.File(experiment.parent / "one.h5", "r+") as file:
        file["data"].attrs["vectors"] = said
    with pytest.raises(DataError, match=r"one.h5: says of 'data' that its vectors are .*; expected lists"):
        catalog.get(Dataset, "prepared")(url=str(experiment.parent / "one.h5")).build("test", Path())


def test_statistics_and_checksums_are_those_of_what_is_in_the_file(experiment: Path, catalog: Catalog) -> None:
    shift = 1000 + np.arange(6, dtype="f4")[:, None, None, None, None]
    write_prepared(experiment.parent / "two.h5", waves(6, 10, 16, channels=2) * 5 + shift)
    made = packings(experiment, catalog)
    pack_all(made)
    with h5py.File(made[2].path) as file:
        data = file["data"][:]
        for number, checksum in enumerate(file["checksums"][:]):
            assert hashlib.blake2b(data[number].tobytes(), digest_size=16).digest() == checksum.tobytes()
        exact = np.moveaxis(data.astype("f8"), 2, 0).reshape(2, -1)
        found = {name: file[f"statistics/{name}"][:] for name in packed.STATISTICS}
    assert np.allclose(found["mean"], exact.mean(1), rtol=1e-13)
    assert np.allclose(found["std"], exact.std(1), rtol=1e-9)
    assert np.array_equal([found["min"], found["max"]], [exact.min(1), exact.max(1)])


SLOWLY = """
import sys, time
from pathlib import Path
from rich.console import Console
from opframe.tools import packing
from opframe.tools.packing_plan import plan
from opframe.tools.selection import load_selection, open_part, splits
from opframe_registry import discover
selection = load_selection(Path(sys.argv[1]), discover())
parts = [open_part(component, split, selection) for component, split in splits(selection)[:1]]
(made,) = plan(parts, Path(sys.argv[2]), None, False)
read = packing._read
def slowly(*words):
    time.sleep(0.05)
    return read(*words)
packing._read = slowly
packing.pack(made, Console(quiet=True))
"""


def written(partial: Path) -> int:
    try:
        return int(packed.places(partial).written.sum()) if partial.exists() else 0
    except DataError:
        return 0


def test_a_killed_packing_goes_on_where_it_was(
    experiment: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prepared(experiment.parent / "one.h5", waves(200, 12, 16))
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, str(experiment), str(experiment.parent / "packed")])
    partial = experiment.parent / "packed" / "one" / "train.h5.partial"
    deadline = time.monotonic() + 60
    while written(partial) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = written(partial)
    assert 3 <= before < 198
    assert not partial.with_name("train.h5").exists()
    packing = packings(experiment, catalog)[0]
    read: list[int] = []
    original = type(packing.source).read
    monkeypatch.setattr(
        type(packing.source),
        "read",
        lambda self, number, *frames: read.append(number) or original(self, number, *frames),
    )
    pack(packing, Console(quiet=True))
    assert sorted(set(read)) == list(range(before, 198))
    with h5py.File(packing.path) as file:
        assert np.array_equal(file["data"][:, :, 0], np.moveaxis(waves(200, 12, 16)[:198, ..., 0], -1, 1))
    assert not partial.exists()


def test_bytes_that_changed_on_the_disk_are_found_and_written_again(experiment: Path, catalog: Catalog) -> None:
    packing = packings(experiment, catalog)[0]
    partial = packing.path.with_name("train.h5.partial")
    pack(packing, Console(quiet=True))
    packing.path.rename(partial)
    place = packed.places(partial).offsets["data"] + 2 * 12 * 16 * 16 * 4 + 100
    with partial.open("r+b") as file:
        packed.put(file, place, np.float32([7.0]))
    with pytest.raises(DataError, match=r"trajectory 2 is read back otherwise than it was written"):
        pack(packing, Console(quiet=True))
    assert not packing.path.exists()
    pack(packing, Console(quiet=True))
    with h5py.File(packing.path) as file:
        assert np.array_equal(file["data"][2, :, 0], np.moveaxis(waves(6, 12, 16)[2, ..., 0], -1, 0))


def test_nothing_is_written_over(experiment: Path, catalog: Catalog) -> None:
    made = packings(experiment, catalog)
    pack_all(made)
    before = made[0].path.stat()
    assert pack_all(made) == [False] * 4
    after = made[0].path.stat()  # it was read, so that the time of that differs
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    with pytest.raises(DataError, match=r"train.h5: holds something else than one \(train\) would give"):
        pack_all(packings(experiment, catalog, "datasets.0.stride=2"))
    made[1].path.write_text("my thesis")
    with pytest.raises(DataError, match=r"test.h5: exists and is no packed file"):
        pack_all(made)
    assert made[1].path.read_text() == "my thesis"


def replace(path: Path, data: NDArray[np.float32]) -> None:
    """Put another file in the place of one, which may be open."""
    write_prepared(path.with_name("new.h5"), data).replace(path)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def packed_values(packing: Packing) -> set[float]:
    with h5py.File(packing.path) as file:
        return set(np.unique(file["data"][:]).tolist())


def test_a_file_whose_source_was_replaced_is_packed_anew_and_stays_until_that_is_done(
    experiment: Path, catalog: Catalog, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = experiment.parent / "one.h5"
    values = np.ones((6, 16, 16, 12, 1), "f4")
    replace(source, values)
    made = packings(experiment, catalog)[0]
    pack(made, Console(quiet=True))
    values[3, 2] = np.nan
    replace(source, 4 * values)
    with pytest.raises(DataError, match="one: trajectory 3 holds nan"):
        pack(packings(experiment, catalog)[0], Console(width=20))
    assert f"{made.path}: {source} has changed since it was packed; it is packed anew" in capsys.readouterr().out
    assert packed_values(made) == {1.0}
    replace(source, np.full_like(values, 3.0))
    with monkeypatch.context() as patched:
        patched.setattr(packed, "put_statistics", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pack(packings(experiment, catalog)[0], Console(quiet=True))
    replace(source, np.full_like(values, 4.0))
    assert pack(packings(experiment, catalog)[0], Console(width=20))
    assert f"{made.path}.partial: {source} has changed since it was packed; it is begun" in capsys.readouterr().out
    assert packed_values(made) == {4.0}
    assert not pack(packings(experiment, catalog)[0], Console())
    assert capsys.readouterr().out == ""
    replace(source, np.full((9, 16, 16, 12, 1), 5.0, "f4"))
    assert pack(packings(experiment, catalog)[0], Console(quiet=True))
    assert packed_values(made) == {5.0}


def test_a_packed_file_that_names_no_sources_is_taken_unless_one_is_younger(
    experiment: Path, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    source = experiment.parent / "one.h5"
    made = packings(experiment, catalog)[0]
    pack(made, Console(quiet=True))
    with h5py.File(made.path, "r+") as file:
        del file["made_from"]
    assert not pack(made, Console(width=20))
    assert "does not say which files it was packed from; none on this machine is younger" in capsys.readouterr().out
    replace(source, 4 * waves(6, 12, 16))
    os.utime(source, ns=(1, made.path.stat().st_mtime_ns + 1))
    assert pack(packings(experiment, catalog)[0], Console(quiet=True))
    assert max(packed_values(made)) == 4.0


def test_sources_that_change_while_they_are_packed_give_no_file(
    experiment: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, made = experiment.parent / "one.h5", packings(experiment, catalog)[0]
    verify = packing_module._verify

    def verified(*words: object) -> object:
        os.utime(source, ns=(1, 1))
        return verify(*words)

    monkeypatch.setattr(packing_module, "_verify", verified)
    with pytest.raises(DataError, match=r"one\.h5 has changed while one \(train\) was packed"):
        pack(made, Console(quiet=True))
    assert not made.path.exists()
    monkeypatch.undo()
    assert pack(packings(experiment, catalog)[0], Console(quiet=True))


def test_values_that_are_not_finite_are_not_packed(experiment: Path, catalog: Catalog) -> None:
    data = waves(6, 12, 16)
    data[1, 2, 5, 7, 0] = np.nan
    write_prepared(experiment.parent / "one.h5", data)
    made = packings(experiment, catalog)
    with pytest.raises(DataError, match=r"one: trajectory 1 holds nan in frame 7"):
        pack_all(made)
    assert not made[0].path.exists()


def test_a_disk_without_room_is_said_before_anything_is_written(
    experiment: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    made = packings(experiment, catalog)
    with pytest.raises(DataError, match=r"train.h5.partial: takes 0.0 GB, but 0.0 GB are free there"):
        pack_all(made)
    assert list(made[0].path.parent.iterdir()) == []


def test_two_labels_that_would_share_a_folder_are_refused(experiment: Path, catalog: Catalog) -> None:
    with pytest.raises(ConfigError, match=r"'a:b' and 'a b' would be packed into one folder"):
        packings(experiment, catalog, "datasets.0.label=a b", "datasets.1.label=a:b")


def test_axes_that_a_file_names_wrongly_are_refused(experiment: Path, catalog: Catalog) -> None:
    path = experiment.parent / "one.h5"
    for axes in ("n t c x", "n t c x q", "t t c x y", "n t c x z"):
        with h5py.File(path, "r+") as file:
            file["data"].attrs["axes"] = axes
        with pytest.raises(DataError, match=f"says of 'data' of shape .* that its axes are '{axes}'"):
            catalog.get(Dataset, "prepared")(url=str(path)).build("test", Path())


def test_a_flipped_bit_of_a_packed_file_is_found_by_data_check(experiment: Path, catalog: Catalog, cli: Call) -> None:
    made = packings(experiment, catalog)
    pack_all(made)
    config = with_packed(experiment, catalog, made)
    assert cli("data", "check", config, "--jobs", "1").code == 0
    path = next(each.path for each in made if each.path.name == "train.h5")
    with h5py.File(path, "r") as file:
        begin = file["data"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[begin] ^= 1  # the lowest bit of the first number of trajectory 0
    path.write_bytes(content)
    found = cli("data", "check", config, "--jobs", "1")
    assert found.code == 2
    assert "its bytes are others than were packed (BLAKE2b); pack it again" in " ".join(found.output.split())
