"""Weights know what their data were normalised by, forecast in the data's own units, and are given no other data."""

from __future__ import annotations

import io
import json
import shutil
import tomllib
from collections.abc import Callable
from math import hypot
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from opframe import Pretrained, load_pretrained
from opframe.run.experiment import load_experiment
from opframe.run.job import Request, run
from opframe.weights.convert import export_run
from opframe.weights.location import WeightsError
from opframe.weights.pretrained import read_header, write_folder
from opframe_registry import Catalog, ConfigError
from support import EXPERIMENT, waves, write_prepared
from weights_support import Call, command_line, small_weights

MEAN, DEVIATION = 287.0, 10.0

AIR = """
[run]
folder = "run"
[data]
cache = "cache"
grid = [8, 8]
history = 4
batch_size = 8
[normalizer]
type = "dataset"
[[datasets]]
type = "prepared"
label = "air"
url = "air.h5"
channels = ["temperature"]
test = 2
""" + EXPERIMENT[EXPERIMENT.index("[sampler]") :].replace("steps = 8", "steps = 200").replace(
    "_every = 4", "_every = 200"
)


def air() -> NDArray[np.float32]:
    """Temperatures (8 trajectories, 8, 8, 12, 1) of mean 287 and deviation 10."""
    return MEAN + DEVIATION * 2**0.5 * waves(8, 12, 8)


def train(config: Path, catalog: Catalog) -> None:
    experiment = load_experiment(config, catalog)
    request = Request(experiment=experiment, catalog=catalog, resume=False, stop_at=None, how_to_continue="")
    run(request, Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Path:
    """A folder with temperatures, an experiment, its finished run, and the weights folder made of it."""
    folder = tmp_path_factory.mktemp("original")
    write_prepared(folder / "air.h5", air())
    (folder / "experiment.toml").write_text(AIR)
    train(folder / "experiment.toml", catalog)
    export_run(str(folder / "run"), folder / "weights", catalog)
    return folder


@pytest.fixture
def trained(original: Path, tmp_path: Path) -> Path:
    """The same, free to be written in, with an experiment that begins from the weights."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    text = 'include = "experiment.toml"\n[run]\nfolder = "tuned"\n[init]\nfrom = "weights"\n'
    (tmp_path / "tune.toml").write_text(text)
    return tmp_path


@pytest.fixture
def opframe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line."""
    return command_line(monkeypatch, capsys)


def truth() -> Tensor:
    """The test trajectories in kelvin, (2, 12, 1, 8, 8)."""
    return torch.from_numpy(air()[-2:]).permute(0, 3, 4, 1, 2).contiguous()


@torch.no_grad()
def errors(network: Pretrained) -> tuple[float, float]:
    """Of a roll-out over the test trajectories in kelvin: the mean error of its frames, and that of the whole."""
    frames = truth()
    predicted = network.forecast(frames[:, :4], 8)
    difference, size = (predicted - frames[:, 4:]).square().sum((2, 3, 4)), frames[:, 4:].square().sum((2, 3, 4))
    return (difference / size).sqrt().mean().item(), (difference.sum(1) / size.sum(1)).sqrt().mean().item()


@pytest.mark.parametrize("place", ["run", "weights"])
def test_loaded_weights_forecast_in_kelvin_with_the_error_of_their_run(place: str, original: Path) -> None:
    model = json.loads((original / "run" / "report.json").read_text())["datasets"][0]["scores"]["model"]
    assert model["full"] < 0.01
    network = load_pretrained(original / place)
    assert errors(network) == pytest.approx((model["step"], model["full"]), rel=1e-3)
    frames = truth()
    with torch.no_grad():
        field = network(frames[:, :4]).field
    assert (field - frames[:, 4:5]).abs().mean() < 0.2 * DEVIATION
    assert not network.network.training


def test_the_numbers_are_kept_to_the_last_digit_and_shown(original: Path, catalog: Catalog, opframe: Call) -> None:
    (path,) = (original / "cache" / "statistics").iterdir()
    record = json.loads(path.read_text())
    for header in (read_header(original / "run", catalog), read_header(original / "weights", catalog)):
        (known,) = header.datasets
        assert (known.title, known.channels) == ("air", ("temperature",))
        assert {name: list(array.values) for name, array in known.state.items()} == {
            name: array["values"] for name, array in record["state"].items()
        }
    done = opframe("weights", "show", original / "weights")
    assert "normalization of the data: dataset\n  air: temperature 287 ± 10\ntrained: 200 steps, seed 0" in done.output


def test_weights_of_data_as_they_are_load_as_the_network_itself(tmp_path: Path) -> None:
    pretrained = small_weights()
    write_folder(pretrained.header, pretrained.weights, tmp_path / "weights")
    assert "normalizer" not in tomllib.loads((tmp_path / "weights" / "config.toml").read_text())
    network = load_pretrained(tmp_path / "weights").network
    assert type(network) is type(pretrained.header.backbone.build(pretrained.header.fields))
    assert network.state_dict().keys() == pretrained.weights.keys()
    with pytest.raises(WeightsError, match="was trained on data as they are; leave out statistics_of"):
        load_pretrained(tmp_path / "weights", statistics_of=torch.ones(1, 1, 1, 8, 8))
    with pytest.raises(WeightsError, match=r"not trained on a dataset 'air'; it was trained on: not known"):
        load_pretrained(tmp_path / "weights", dataset="air")


def test_other_data_are_normalised_by_their_own_frames(original: Path) -> None:
    """Temperatures in another unit, of which the weights know nothing, are forecast as those in kelvin."""
    kelvin = truth()
    fahrenheit = kelvin * 1.8 - 459.67
    other = load_pretrained(original / "weights", statistics_of=fahrenheit)
    own = load_pretrained(original / "weights", statistics_of=kelvin)
    with torch.no_grad():
        expected = own(kelvin[:, :4]).field * 1.8 - 459.67
        assert torch.allclose(other(fahrenheit[:, :4]).field, expected, rtol=1e-4)


WRONG_FRAMES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "one trajectory": (lambda frames: frames[0], r"statistics_of has the shape \(12, 1, 8, 8\), but expected"),
    "too many channels": (lambda frames: frames.repeat(1, 1, 2, 1, 1), "of 5 axes, with 1 to 1 channels"),
    "none": (lambda frames: frames[:0], r"has the shape \(0, 12, 1, 8, 8\)"),
    "not finite": (lambda frames: frames / 0, "holds values that are not finite"),
}


@pytest.mark.parametrize("wrong", WRONG_FRAMES)
def test_frames_without_usable_statistics_are_refused(wrong: str, original: Path) -> None:
    change, words = WRONG_FRAMES[wrong]
    with pytest.raises(WeightsError, match=words):
        load_pretrained(original / "weights", statistics_of=change(truth()))


def test_what_is_asked_for_twice_or_wrongly_is_an_error(original: Path) -> None:
    with pytest.raises(WeightsError, match="not both"):
        load_pretrained(original / "weights", dataset="air", statistics_of=truth())
    with pytest.raises(WeightsError, match="not trained on a dataset 'aire'; did you mean 'air'"):
        load_pretrained(original / "weights", dataset="aire")
    with pytest.raises(ConfigError, match=r"the shape \(2, 4, 2, 8, 8\), but expected \(B, history, 1, \*grid\)"):
        load_pretrained(original / "weights")(torch.ones(2, 4, 2, 8, 8))


# Experiments that begin with weights


@pytest.mark.parametrize("command", ["evaluate", "run", "check"])
def test_weights_are_not_given_data_of_another_normalisation(command: str, trained: Path, opframe: Call) -> None:
    done = opframe(command, trained / "tune.toml", "--set", "normalizer.type=none")
    assert done.code == 2
    assert "weights was trained with [normalizer] type = 'dataset', but here it is type = 'none'" in done.errors
    assert not (trained / "tuned").exists()


def test_weights_are_not_given_a_dataset_whose_numbers_have_changed(trained: Path, opframe: Call) -> None:
    write_prepared(trained / "air.h5", air() - 273.15)
    done = opframe("evaluate", trained / "tune.toml")
    assert done.code == 2
    assert "air: temperature 287 ± 10 there, temperature 13.85 ± 10 here" in done.errors
    assert not (trained / "tuned").exists()
    other = opframe("evaluate", trained / "tune.toml", "--set", "datasets.0.label=celsius")
    assert other.code == 0, other.errors  # another dataset is normalised by its own numbers
    reports = [json.loads((trained / name / "report.json").read_text()) for name in ("run", "tuned")]
    kelvin, celsius = (report["datasets"][0]["scores"]["model"]["full"] for report in reports)
    degrees = kelvin * hypot(MEAN, DEVIATION)  # an error is relative to the size of the field, in its own unit
    assert celsius * hypot(MEAN - 273.15, DEVIATION) == pytest.approx(degrees, rel=0.05)


def test_a_run_does_not_go_on_with_data_whose_numbers_have_changed(tmp_path: Path, opframe: Call) -> None:
    write_prepared(tmp_path / "air.h5", air())
    (tmp_path / "experiment.toml").write_text(AIR)
    begun = opframe("run", tmp_path / "experiment.toml", "--stop-at", 1)
    assert begun.code == 0, begun.errors
    header = (tmp_path / "run" / "model.toml").read_bytes()
    write_prepared(tmp_path / "air.h5", air() * 2)
    done = opframe("run", tmp_path / "experiment.toml", "--resume")
    assert done.code == 2
    assert "air: temperature 287 ± 10 there, temperature 574 ± 20 here" in done.errors
    assert (tmp_path / "run" / "model.toml").read_bytes() == header


def test_training_on_data_normalised_otherwise_is_stated(trained: Path, opframe: Call) -> None:
    other = ("--set", "normalizer.type=none", "--set", "init.normalization=changed")
    done = opframe("run", trained / "tune.toml", "--stop-at", 1, *other)
    assert done.code == 0, done.errors
    refused = opframe("evaluate", trained / "tune.toml", *other, "--set", f"run.folder={trained / 'evaluated'}")
    assert (refused.code, "init.normalization = 'changed' is for training" in refused.errors) == (2, True)


def test_the_same_normalisation_is_evaluated_with_the_same_numbers(trained: Path, opframe: Call) -> None:
    done = opframe("evaluate", trained / "tune.toml")
    assert done.code == 0, done.errors
    reports = [json.loads((trained / name / "report.json").read_text()) for name in ("run", "tuned")]
    assert reports[0]["datasets"] == reports[1]["datasets"]


# What stands in the folder

BROKEN = {
    "deviation]\nvalues = [\n": ("deviation]\nvalues = [\n    1.0,\n", r"expected mean and deviation of 1 channels"),
    'title = "air"': ('title = "water"', r"\[\[datasets\]\] is of water, but fields.datasets are air"),
    '[normalizer]\ntype = "dataset"': ("", "air has a state, but there is no normalizer to take it"),
    "mean]\nvalues = [\n    2": ("mean]\nvalues = [\n    inf,  # 2", "air: numbers must be finite"),
    "deviation]\nvalues = [\n    ": ("deviation]\nvalues = [\n    -", "what frames are divided by above 0"),
    'channels = [\n    "temperature",\n]\ngrid': ("channels = []\ngrid", "air has 1 channels of 0"),
}


@pytest.mark.parametrize("line", BROKEN)
def test_numbers_that_make_no_sense_are_refused(line: str, trained: Path, catalog: Catalog) -> None:
    wrong, words = BROKEN[line]
    path = trained / "weights" / "config.toml"
    assert path.read_text().count(line) == 1
    path.write_text(path.read_text().replace(line, wrong))
    with pytest.raises(WeightsError, match=rf"(?s)weights/config.toml does not describe .*{words}"):
        read_header(trained / "weights", catalog)
