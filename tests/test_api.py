"""The public Python API: every name, on one small run, by its numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from math import isclose
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import opframe
from opframe_registry import ConfigError, DataError, RunError
from support import EXPERIMENT, assert_same_training, waves, write_prepared

WAVES = 287 + 10 * waves(6, 12, 16)
FRAMES = WAVES.transpose(0, 3, 4, 1, 2)
"""The same, (N, T, C, X, Y). Of the first four trajectories, which are for training, one is held out."""

HISTORY = 4
TITLES = ("waves", "solved")
SPLITS = ("train", "validation", "test")


def tables(folder: Path) -> dict[str, Any]:
    """An experiment as a mapping: waves from a file, and an equation that is solved, both normalised."""
    experiment = tomllib.loads(EXPERIMENT)
    solved = {"type": "diffusion_reaction", "label": "solved", "resolution": 16, "frames": 8, "train": 4, "test": 2}
    return {
        **experiment,
        "run": {"folder": folder / "run"},
        "data": {**experiment["data"], "cache": folder / "cache", "validation": 1},
        "datasets": [{"type": "prepared", "label": "waves", "url": str(folder / "waves.h5"), "test": 2}, solved],
        "normalizer": {"type": "dataset"},
        "trainer": {**experiment["trainer"], "evaluate_every": 4},
        "loggers": [],
    }


@attrs.frozen
class Trained:
    """What all tests look at."""

    folder: Path
    experiment: opframe.Experiment
    run: opframe.Run
    printed: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("api")
    write_prepared(folder / "waves.h5", WAVES)
    experiment = opframe.load_experiment(tables(folder))
    with pytest.MonkeyPatch.context() as patch, (folder / "printed").open("w+") as printed:
        patch.setattr(sys, "stdout", printed)
        run = opframe.train(experiment, quiet=True)
        printed.seek(0)
        return Trained(folder, experiment, run, printed.read())


def error_of(report: opframe.Report, title: str) -> float:
    """The error of the model's whole roll-outs."""
    return next(item.scores["model"].full for item in report.datasets if item.title == title)


def error_between(predicted: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """The same of forecasts (N, T, C, X, Y): relative norms over space and time, averaged over channels and N."""
    difference, size = (np.sqrt((value**2).sum((1, 3, 4))) for value in (predicted - truth, truth))
    return float((difference / size).mean())


def test_importing_it_needs_no_torch_and_shows_the_public_names() -> None:
    words = (
        "import sys, opframe; assert not {'torch', 'numpy', 'opframe.api'} & sys.modules.keys(); "
        "assert dir(opframe) == sorted(opframe.__all__); "
        "from opframe import *; assert 'torch' in sys.modules; assert train is opframe.train"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for name in opframe.__all__:
        assert getattr(opframe, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        opframe.fit  # noqa: B018 - asking is what is tried


def test_an_experiment_is_read_from_a_file_or_a_mapping_with_overrides_of_both_forms(tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text(EXPERIMENT)
    path = tmp_path / "experiment.toml"
    one = opframe.load_experiment(path, {"trainer.steps": 3, "datasets.one.weight": 0.5, "data.grid": (8, 8)})
    two = opframe.load_experiment(str(path), ["trainer.steps=3", "datasets.one.weight=0.5", "data.grid=[8, 8]"])
    assert one == two == opframe.load_experiment(one_mapping(path), {"trainer.steps": 3})
    assert opframe.load_experiment(path, "trainer.steps=3").trainer.steps == 3
    assert (one.trainer.steps, one.datasets[0].weight, one.data.grid) == (3, 0.5, (8, 8))
    assert one.run.folder == str(tmp_path / "run")
    table = {"optimizer": {"type": "adamw", "learning_rate": 0.25}, "title": "0.5"}
    changed = opframe.load_experiment(path, table)
    assert (changed.optimizer.name, changed.optimizer.learning_rate, changed.title) == ("adamw", 0.25, "0.5")


def one_mapping(path: Path) -> Mapping[str, Any]:
    """The overridden experiment as a mapping, with locations as they are from the working directory."""
    experiment = tomllib.loads(EXPERIMENT)
    one, two = ({**item, "url": path.parent / item["url"]} for item in experiment["datasets"])
    data = {**experiment["data"], "grid": (8, 8)}
    return {
        **experiment,
        "run": {"folder": path.parent / "run"},
        "data": data,
        "datasets": ({**one, "weight": 0.5}, two),
    }


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"trainer.stepz": 3}, r"trainer: unknown key 'stepz'; did you mean 'steps'\?"),
        ({"trainer.steps": "3", "data.batch_size": 0}, r"(?s)data.*batch_size.*trainer.steps: expected int, got '3'"),
        ({"datasets.three.weight": 2.0}, "overrides: datasets.three.weight: 'three' is not an index"),
        (["datasets.three.weight=2"], "--set datasets.three.weight=2: 'three' is not an index"),
        ({"trainer.steps": object()}, "trainer.steps: expected int, got <object"),
        ({"": 1}, "expected key=value"),
    ],
)
def test_mistakes_in_an_experiment_are_said_with_their_places(overrides: Any, said: str, experiment: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        opframe.load_experiment(experiment, overrides)
    with pytest.raises(opframe.OpframeError, match="no such file"):
        opframe.load_experiment(experiment.parent / "other.toml")


def test_run_folder_and_cache_are_the_same_for_whoever_reads_the_resolved_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_prepared(tmp_path / "waves.h5", WAVES)
    named = tables(tmp_path)
    del named["run"], named["data"]["cache"]
    experiment = opframe.load_experiment(named)
    assert experiment.run.folder == str(tmp_path / "runs" / "default")
    assert experiment.data.cache == str(tmp_path / "data")


def test_the_data_of_every_split_are_there_in_their_own_units(trained: Trained) -> None:
    train, held_out, test = (opframe.open_data(trained.experiment, split, quiet=True) for split in SPLITS)
    assert [list(data) for data in (train, held_out, test)] == [["waves", "solved"]] * 3
    assert [len(data["waves"]) for data in (train, held_out, test)] == [3, 1, 2]
    assert [len(data["solved"]) for data in (train, held_out, test)] == [3, 1, 2]
    assert test["waves"].metadata.grid == (16, 16)
    for data, numbers in ((train, [0, 1, 3]), (held_out, [2]), (test, [4, 5])):
        np.testing.assert_array_equal(np.stack(data["waves"]), FRAMES[numbers])
    assert len(list(test["solved"])) == 2


def test_a_split_is_a_sequence_of_trajectories(trained: Trained) -> None:
    data = opframe.open_data(trained.experiment, quiet=True)["waves"]
    np.testing.assert_array_equal(data[-1], FRAMES[3])
    np.testing.assert_array_equal(np.stack(data[1:]), FRAMES[[1, 3]])
    np.testing.assert_array_equal(data.read(-1, 2, 5), FRAMES[3, 2:5])
    np.testing.assert_array_equal(data.read(0, 9), FRAMES[0, 9:])
    assert data[0].dtype == np.float32
    data[0][:] = 0  # what is given belongs to the caller
    np.testing.assert_array_equal(data[0], FRAMES[0])
    for index in (3, -4):
        with pytest.raises(IndexError):
            data[index]
    for place in ((3, 0, 2), (0, 4, 4), (0, 0, 13), (0, -2, None)):
        with pytest.raises(IndexError):
            data.read(*place)


def test_data_that_are_not_there_are_said(trained: Trained) -> None:
    with pytest.raises(ConfigError, match=r"split = 'tset'; did you mean 'test'\?; there are train, validation, test"):
        opframe.open_data(trained.experiment, "tset")
    changed = tables(trained.folder)
    changed["datasets"][0]["url"] = "nowhere.h5"
    with pytest.raises(DataError, match="no such file"):
        opframe.open_data(opframe.load_experiment(changed), quiet=True)


def test_a_run_says_what_became_of_it_and_prints_nothing_when_quiet(
    trained: Trained, capfd: pytest.CaptureFixture[str]
) -> None:
    run = trained.run
    assert (run.folder, run.step, run.interrupted, run.signal) == (trained.folder / "run", 8, False, None)
    assert trained.printed == ""
    assert [record["step"] for record in run.numbers()] == [2, 4, 6, 8]
    assert [record["step"] for record in run.numbers("evaluation")] == [4, 8]
    (test,) = run.numbers("test")
    assert test["waves/model/full"] == error_of(run.report, "waves")
    with pytest.raises(ConfigError, match=r"kind = 'trian'; did you mean 'train'\?"):
        run.numbers("trian")
    with pytest.raises(RunError, match=r"metrics\.jsonl"):
        opframe.Run(folder=trained.folder, step=0, interrupted=True).numbers()
    with pytest.raises(RunError, match="a finished run"):
        opframe.train(trained.experiment, quiet=True)
    for wrong in ({"stop_at": 0}, {"processes": 0}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} = 0, expected at least 1"):
            opframe.train(trained.experiment, quiet=True, **wrong)
    with ThreadPoolExecutor(1) as threads, pytest.raises(RunError, match="from the main thread"):
        threads.submit(opframe.train, trained.experiment, resume=True, quiet=True).result()
    assert capfd.readouterr().out == ""


def test_a_run_in_two_processes_stops_where_it_is_told_and_goes_on_in_one_or_two(
    trained: Trained, capfd: pytest.CaptureFixture[str]
) -> None:
    """It ends with the numbers of the one in one process up to rounding, and with its own report."""
    experiment = attrs.evolve(trained.experiment, run=attrs.evolve(trained.experiment.run, folder=two(trained)))
    stopped = opframe.train(experiment, stop_at=3, processes=2, quiet=True)
    assert (stopped.step, stopped.interrupted, stopped.report, stopped.signal) == (3, True, None, None)
    with pytest.raises(RunError, match=r"stopped at step 3 of 8\n.*: train"):
        opframe.train(experiment, processes=2, quiet=True)
    ended = opframe.train(experiment, resume=True, processes=2, quiet=True)
    assert (ended.folder, ended.step, ended.interrupted) == (trained.folder / "two", 8, False)
    assert capfd.readouterr().out == ""
    for title in TITLES:
        assert isclose(error_of(ended.report, title), error_of(trained.run.report, title), rel_tol=1e-3)
    written = json.loads((ended.folder / "report.json").read_text())
    assert {**written, **json.loads(json.dumps(ended.report.record()))} == written
    again = opframe.train(experiment, resume=True, quiet=True)
    assert again.report.measures == ended.report.measures
    assert isclose(error_of(again.report, "waves"), error_of(ended.report, "waves"), rel_tol=1e-5)


def two(trained: Trained) -> str:
    """A folder for the run in two processes; a path relative to the working directory is one, too."""
    return os.path.relpath(trained.folder / "two")


def test_a_run_that_is_stopped_goes_on_to_the_same_bits(trained: Trained, tmp_path: Path) -> None:
    changed = {**tables(trained.folder), "run": {"folder": tmp_path / "run"}}
    experiment = opframe.load_experiment(changed)
    stopped = opframe.train(experiment, stop_at=4, quiet=True)
    assert (stopped.step, stopped.interrupted, stopped.report) == (4, True, None)
    ended = opframe.train(experiment, resume=True, quiet=True)
    assert (ended.step, ended.interrupted) == (8, False)
    assert ended.report == trained.run.report
    assert_same_training(ended.folder, trained.run.folder, 8)


def test_what_is_evaluated_again_has_the_numbers_of_the_report(
    trained: Trained, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = trained.run
    assert opframe.evaluate(run, quiet=True) == run.report
    assert (run.folder / "evaluation" / "report.md").exists()
    assert opframe.evaluate(run.folder, folder=tmp_path / "a", quiet=True) == run.report
    run.pretrained().save(tmp_path / "weights")
    other = opframe.load_experiment(trained.run.folder / "config.toml", {"evaluation.batch_size": 1})
    again = opframe.evaluate(tmp_path / "weights", other, folder=tmp_path / "b", quiet=True)
    assert all(isclose(error_of(again, title), error_of(run.report, title), rel_tol=1e-5) for title in TITLES)
    assert capfd.readouterr().out == ""
    with pytest.raises(ConfigError, match="weights alone do not say what to evaluate them on"):
        opframe.evaluate(tmp_path / "weights", quiet=True)
    with pytest.raises(ConfigError, match="there is no such run folder"):
        opframe.evaluate(tmp_path / "nowhere", quiet=True)


def test_a_run_that_began_with_parts_of_other_weights_is_evaluated_whole(trained: Trained, tmp_path: Path) -> None:
    """What it took of them, and how their data were normalised, is no matter of its own weights."""
    parts = {"from": trained.run.folder, "components": ["embedding"], "normalization": "changed"}
    changed = {**tables(trained.folder), "run": {"folder": tmp_path / "run"}, "init": parts}
    changed["trainer"] = {**changed["trainer"], "steps": 2}
    run = opframe.train(opframe.load_experiment(changed), quiet=True)
    assert opframe.evaluate(run, quiet=True) == run.report
    assert run.report != trained.run.report


def test_a_forecast_is_that_of_the_evaluation(trained: Trained, tmp_path: Path) -> None:
    """From a run, its folder and a loaded network, of arrays and tensors, one trajectory or many, by the numbers."""
    run, network = trained.run, trained.run.pretrained()
    for title, data in opframe.open_data(trained.experiment, "test", quiet=True).items():
        frames, steps = np.stack(data), data.metadata.frames - HISTORY
        given = frames[:, :HISTORY]
        predicted = opframe.forecast(run, given, steps, dataset=title)
        assert (predicted.dtype, predicted.shape) == (np.float32, frames[:, HISTORY:].shape)
        assert isclose(error_between(predicted, frames[:, HISTORY:]), error_of(run.report, title), rel_tol=1e-4)
        for weights in (run.folder, str(run.folder), network, run.pretrained(title)):
            np.testing.assert_array_equal(opframe.forecast(weights, given, steps, dataset=title), predicted)
        np.testing.assert_array_equal(
            opframe.forecast(network, torch.from_numpy(given), steps, dataset=title), predicted
        )
        single = opframe.forecast(run.pretrained(title), given[1].astype(np.float64), steps)
        np.testing.assert_allclose(single, predicted[1], rtol=1e-4, atol=1e-4 * np.abs(predicted).max())
    backwards = given[::-1]  # also as memory that nobody may write
    backwards.flags.writeable = False
    turned = opframe.forecast(network, backwards, 2, dataset=title)
    np.testing.assert_allclose(turned[::-1], predicted[:, :2], rtol=1e-4, atol=1e-4)


def test_a_forecast_is_computed_where_the_network_lies_or_is_told_to_be(trained: Trained) -> None:
    network, frames = trained.run.pretrained("waves"), FRAMES[0, :HISTORY]
    for device in (None, "cpu", torch.device("cpu")):
        assert np.isfinite(opframe.forecast(network, frames, 1, device=device)).all()
    network.to("meta")
    with pytest.raises(RuntimeError, match="meta"):  # it stayed there, where there are no numbers
        opframe.forecast(network, frames, 1)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dataset": "wave"}, "wave"),
        ({"dataset": None}, "waves"),
        ({"steps": 0}, "steps = 0"),
        ({"frames": [["a"]]}, "frames: expected an array of numbers"),
        ({"frames": np.zeros((3, 1, 16, 16))}, r"frames have the shape \(3, 1, 16, 16\)"),
        ({"device": "tpv"}, "device = 'tpv'"),
        ({"conditions": {"viscosity": 1.0}}, "there is no parameter 'viscosity'"),
        ({"weights": "nowhere"}, "nowhere"),
    ],
)
def test_what_does_not_fit_a_forecast_is_said(trained: Trained, changed: dict[str, Any], said: str) -> None:
    call = {"weights": trained.run, "frames": FRAMES[0], "steps": 2, "dataset": "waves", **changed}
    with pytest.raises(opframe.OpframeError, match=said):
        opframe.forecast(**call)


def test_runs_are_set_beside_each_other(trained: Trained, tmp_path: Path) -> None:
    changed = {**tables(trained.folder), "run": {"folder": tmp_path / "longer"}}
    changed["trainer"] = {**changed["trainer"], "steps": 12}
    longer = opframe.train(opframe.load_experiment(changed), quiet=True)
    compared = opframe.compare([trained.run, str(longer.folder)], by="trainer.steps")
    head, *rows = compared.rows()
    assert head == ["run", "trainer.steps", "waves", "solved"]
    numbers = [
        [str(steps), *(f"{error_of(run.report, title):.4f}" for title in TITLES)]
        for run, steps in ((trained.run, 8), (longer, 12))
    ]
    assert [row[1:] for row in rows[:2]] == numbers
    assert rows[2][0] == "persistence"
    step = trained.run.report.datasets[0].scores["model"].step
    assert compared.rows("step")[1][2] == f"{step:.4f}"
    assert compared.markdown() == compared._repr_markdown_()
    assert f"| {numbers[0][1]} |" in compared.markdown()
    compared.write(tmp_path / "compared")
    assert compared.markdown() in (tmp_path / "compared" / "comparison.md").read_text()
    assert (tmp_path / "compared" / "comparison.png").stat().st_size > 1000
    with pytest.raises(ConfigError, match="measure = 'fulll'; did you mean 'full'"):
        compared.rows("fulll")


def test_what_cannot_be_compared_is_said(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to compare"):
        opframe.compare([])
    with pytest.raises(RunError, match="not a finished run"):
        opframe.compare([trained.run, tmp_path])
    with pytest.raises(RunError, match=r"there is no key 'trainer\.stepz'"):
        opframe.compare([trained.run], by="trainer.stepz").rows()
