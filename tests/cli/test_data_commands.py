"""`opframe data info` and `bench`, and the page about all of its commands."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks.loader import measure
from data_support import Command, command, write_experiment
from opframe.bench.chunks import read_stored_chunks
from opframe.readers.contents import gather
from opframe.tools.recognition import recognise
from opframe.tools.selection import limited, load_selection, splits
from opframe_registry import Catalog, ConfigError, DataError, Dataset
from servers import FileServer
from support import ROOT, waves, write_prepared

__all__ = ["command"]


def test_info_says_of_each_dataset_what_it_is(tmp_path: Path, command: Command) -> None:
    path = write_experiment(tmp_path, waves(10, 12, 16))
    with h5py.File(tmp_path / "one.h5", "r+") as file:
        file["data"].attrs.update(
            {"channels": ["w"], "units": ["1/s"], "spacing": [0.5, 0.25], "time_step": 0.1, "license": "MIT"}
        )
        file["parameters/viscosity"] = np.linspace(1e-4, 1e-3, 10)
    done = command("data", "info", path, "--set", "zero_shot=[]")
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    for expected in (
        "one (prepared)",
        "channels w [1/s]",
        "grid 16 x 16, spacing 0.5 x 0.25",
        "time step 0.1",
        "parameter viscosity (train) 0.0001 to 0.0008, 8 values",
        "licence MIT",
        "train 8 trajectories of 12 frames, 64 windows of 5, 98.3 kB as float32",
        "test 2 trajectories of 12 frames, 16 windows of 5, 24.6 kB as float32",
    ):
        assert expected in words
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_info_names_what_cannot_be_opened_and_shows_the_rest(tmp_path: Path, command: Command) -> None:
    path = write_experiment(tmp_path, waves(10, 12, 16))
    (tmp_path / "two.h5").unlink()
    done = command("data", "info", path)
    assert done.returncode == 2
    assert "8 trajectories of 12 frames" in done.stdout
    assert "two.h5: no such file" in done.stdout


def test_a_list_of_datasets_without_the_rest_of_an_experiment_is_enough(catalog: Catalog) -> None:
    selection = load_selection(ROOT / "configs" / "datasets" / "default.toml", catalog)
    assert (selection.frames, len(splits(selection))) == (None, 2 * len(selection.datasets) + len(selection.zero_shot))
    with pytest.raises(ConfigError, match=r"no dataset is called 'ns2d'"):
        limited(selection, ["ns2d"])


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.h5"], {"url": "{}/a.h5", "test": 1}),
        (["train.h5", "test.h5"], {"url": "{}/{{split}}.h5"}),
        (["train/data_0.hdf5", "test/data_0.hdf5"], {"url": "{}/{{split}}"}),
        (["data_0.hdf5", "data_1.hdf5"], {"url": "{}", "test": 1}),
    ],
)
def test_a_prepared_layout_is_recognised_by_what_lies_there(
    tmp_path: Path, catalog: Catalog, files: list[str], expected: dict[str, object]
) -> None:
    folder = tmp_path / "set"
    for file in files:
        write_prepared(folder / file, waves(6, 12, 16)[0] if "data_" in file else waves(6, 12, 16))
    where = str(folder / "a.h5" if files == ["a.h5"] else folder)
    found = {one.component.name: one for one in recognise(where, gather(where), catalog)}
    settings = {key: str(value).format(folder) if key == "url" else value for key, value in expected.items()}
    assert found["prepared"].settings == settings
    assert found["prepared"].component.build("test", Path()).metadata.frames == 12


def test_info_of_a_path_gives_a_table_that_works(
    tmp_path: Path, command: Command, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prepared(tmp_path / "mine.h5", waves(20, 12, 16))
    monkeypatch.chdir(tmp_path)
    done = command("data", "info", "mine.h5")
    assert done.returncode == 0, done.stderr
    assert re.search(r'1\. type = "prepared" +20 trajectories of 12 frames on 16 x 16, 1 channel', done.stdout)
    start = done.stdout.index("[[datasets]]")
    snippet = done.stdout[start : done.stdout.index("prepared (prepared)")]
    (tmp_path / "snippet.toml").write_text("\n".join(line.strip() for line in snippet.splitlines()))
    selection = load_selection(tmp_path / "snippet.toml", catalog)
    assert selection.datasets[0].build("test", Path()).metadata.trajectories == 2


def test_info_of_an_unknown_layout_shows_its_arrays(tmp_path: Path, command: Command) -> None:
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file["grid/x"], file["results/velocity"] = np.zeros(8), np.zeros((3, 5, 8, 8))
    done = command("data", "info", tmp_path / "mine.h5")
    assert done.returncode == 0, done.stderr
    assert "nothing in it says what the axes of the array mean" in done.stdout
    assert "results/velocity  3 x 5 x 8 x 8" in done.stdout
    assert re.search(r'axes = "n t x y" +3 trajectories of 5 frames on 8 x 8, 1 channel', done.stdout)


def test_shapes_are_found_in_every_kind_of_file(tmp_path: Path) -> None:
    from scipy.io import savemat

    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    savemat(tmp_path / "b.mat", {"u": np.zeros((4, 5))})
    (tmp_path / "deep" / "er").mkdir(parents=True)
    write_prepared(tmp_path / "deep" / "er" / "c.hdf5", waves(1, 2, 4))
    (tmp_path / "readme.txt").write_text("not data")
    found = gather(str(tmp_path))
    assert found == {"a.npy:": (2, 3), "b.mat:u": (4, 5), "deep/er/c.hdf5:data": (1, 4, 4, 2, 1)}
    assert gather(str(tmp_path / "a.npy")) == {"": (2, 3)}
    with pytest.raises(DataError, match=r"readme.txt: not HDF5, NetCDF 4, MATLAB, NumPy"):
        gather(str(tmp_path / "readme.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: holds no HDF5"):
        gather(str(tmp_path / "empty"))
    with pytest.raises(DataError, match=r"nowhere: no such file"):
        gather(str(tmp_path / "nowhere"))


def test_shapes_in_zarr_are_found(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("u", shape=(3, 4), dtype="f4")
    assert gather(str(tmp_path / "a.zarr")) == {"u": (3, 4)}
    assert gather(str(tmp_path)) == {"a.zarr:u": (3, 4)}


def test_the_bench_measures_each_dataset_and_the_mixture(experiment: Path, command: Command) -> None:
    words = ("data", "bench", experiment, "--samples", 8, "--rounds", 2)
    done = command(*words, "--json")
    assert done.returncode == 0, done.stderr
    rates = json.loads(done.stdout)
    assert [rate["title"] for rate in rates] == ["one", "two", "mixture"]
    for rate in rates:
        assert min(rate["samples_per_second"], rate["megabytes_per_second"], rate["ceiling"]) > 0
    # A window of `one` is 5 frames of 16 x 16 points in one channel.
    assert rates[0]["megabytes_per_second"] == pytest.approx(rates[0]["samples_per_second"] * 5 * 16 * 16 * 4 / 1e6)
    table = command(*words)
    assert max(map(len, table.stdout.splitlines())) <= 80
    assert "mixture" in table.stdout


def test_the_bench_says_what_goes_into_decoding_and_resizing(experiment: Path, command: Command) -> None:
    options = {"compression": "gzip", "chunks": (1, 64, 64, 12, 1)}
    noise = np.random.default_rng(0).normal(size=(10, 64, 64, 12, 1)).astype("f4")
    write_prepared(experiment.parent / "one.h5", noise, **options)
    done = command("data", "bench", experiment, "--samples", 8, "--rounds", 2, "--json", "--set", "data.grid=[16, 24]")
    assert done.returncode == 0, done.stderr
    one, two, mixture = json.loads(done.stdout)
    assert min(one["decode"], one["read"]) >= 0
    assert min(one["resize"], two["resize"], two["read"]) > 0
    assert {two["decode"], mixture["read"], mixture["resize"], one["requests"]} == {None}


def test_the_bytes_of_stored_chunks_are_those_of_the_window(tmp_path: Path, catalog: Catalog) -> None:
    data = np.random.default_rng(0).normal(size=(3, 16, 16, 12, 1)).astype("f4")
    write_prepared(tmp_path / "a.h5", data, chunks=(1, 8, 16, 3, 1), shuffle=True)
    dataset = catalog.get(Dataset, "prepared")(url=str(tmp_path / "a.h5"), test=1).build("train", tmp_path)
    assert read_stored_chunks(dataset, 1, 2, 4) == 2 * 2 * 8 * 16 * 3 * 4
    assert read_stored_chunks(dataset, 0, 3, 6) == 2 * 8 * 16 * 3 * 4


def test_the_bench_counts_requests_and_bytes_of_remote_data(
    experiment: Path, command: Command, server: FileServer
) -> None:
    url = server.serve("one.h5", write_prepared(experiment.parent / "one.h5", waves(40, 12, 48)).read_bytes())
    words = ("data", "bench", experiment, "--samples", 8, "--rounds", 2, "--set", f"datasets.0.url={url}")
    done = command(*words, "--json")
    assert done.returncode == 0, done.stderr
    one, two, _ = json.loads(done.stdout)
    assert one["requests"] > 0
    assert one["received"] > 0
    assert {one["ceiling"], one["decode"], two["requests"], two["received"]} == {None}
    table = command(*words).stdout
    assert "reques" in table
    assert max(map(len, table.splitlines())) <= 80


def test_the_benchmark_of_the_loader_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = measure(tmp_path, Namespace(small=True, steps=2, seconds=0.0))
    assert len(rows) == 9
    assert all(row.ratio.low > 0 for row in rows)


def test_the_commands_of_the_documentation_work(
    tmp_path: Path, command: Command, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    commands = [line.split()[1:] for line in re.findall(r"^opframe data .*$", page, re.MULTILINE)]
    assert [words[1] for words in commands] == [
        *("info", "info", "check", "pack", "check", "pack", "statistics", "bench", "fetch", "fetch")
    ]
    write_experiment(tmp_path, waves(10, 12, 16))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    for words in commands[:-2]:  # the last ones need a server; test_fetching.py and test_fetching_catalogue.py have one
        mine = ["experiment.toml" if word.startswith(("configs/dpot", "my.toml")) else word for word in words]
        mine = [word.replace("$part", "1/1") for word in mine]
        done = command(*mine, *(["--samples", 2, "--rounds", 1] if "bench" in words else []))
        assert done.returncode == 0, done.stderr
        if "--shard" in mine:
            done = command(*mine[: mine.index("--shard")], "--merge")
            assert done.returncode == 0, done.stderr
    assert (tmp_path / "reports" / "data" / "check.md").exists()
    (tmp_path / "own.toml").write_text(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0])
    assert load_selection(tmp_path / "own.toml", catalog).datasets[0].exclude == (3, 5)
