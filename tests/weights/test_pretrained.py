"""What `load_pretrained` gives forecasts in physical units, by any normalizer, and can be passed on."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import opframe
from opframe.mixture.conditions import unknown_conditions
from opframe.mixture.normalization import arrays
from opframe.run.experiment import load_experiment
from opframe.run.job import Request, run
from opframe.weights.convert import export_run
from opframe.weights.location import WeightsError
from opframe.weights.model import Pretrained
from opframe.weights.normalization import DatasetRecord
from opframe.weights.pretrained import Header, Origin, Weights, parse_header, read_header, write_folder
from opframe_metrics import RelativeL2
from opframe_normalizers import MeanAndDeviation
from opframe_pot import DPOT
from opframe_registry import Catalog, Conditions, ConfigError, Fields, Metadata, Prediction, discover
from plugin_support import install
from support import EXPERIMENT, waves, write_prepared
from weights_support import Call, command_line

FIELDS = Fields(
    channels=("temperature/u", "v"),
    grid=(8, 8),
    history=3,
    horizon=2,
    datasets=("air", "flow"),
    parameters=("viscosity", "buoyancy"),
)
NUMBERS = {"air": ((287.0,), (10.0,)), "flow": ((1.0, -2.0), (0.5, 4.0))}
QUANTILES = '''
from typing import ClassVar
from attrs import frozen
from opframe_registry import Normalizer, hookimpl

class Map:
    def __init__(self, axes):
        self.axes = axes

    def fit(self, frames):
        import torch
        values = torch.cat([piece.movedim(1, 0).flatten(1) for piece in frames], 1)
        self.knots = torch.nanquantile(values, torch.linspace(0, 1, 6), dim=1).T.contiguous()

    def apply(self, frames):
        return self.moved(frames, self.knots, self.levels())

    def restore(self, frames):
        return self.moved(frames, self.levels(), self.knots)

    def levels(self):
        import torch
        return torch.linspace(-1, 1, 6).expand_as(self.knots).contiguous()

    def moved(self, frames, source, target):
        import torch
        source, target = source.to(frames.device), target.to(frames.device)
        ahead = frames.movedim(-1 - self.axes, 0)
        flat = ahead.flatten(1).contiguous()
        above = torch.searchsorted(source, flat).clamp(1, 5)
        share = (flat - source.gather(1, above - 1)) / (source.gather(1, above) - source.gather(1, above - 1))
        result = torch.lerp(target.gather(1, above - 1), target.gather(1, above), share)
        return result.reshape(ahead.shape).movedim(0, -1 - self.axes)

    def state_dict(self):
        return {"knots": self.knots}

    def load_state_dict(self, state):
        self.knots = state["knots"]

@frozen(kw_only=True)
class Quantiles(Normalizer):
    """Each channel lies evenly within -1 and 1."""
    name: ClassVar[str] = "quantiles"

    def build(self, metadata):
        return Map(len(metadata.grid))

@hookimpl
def opframe_components():
    return [Quantiles]
'''


@pytest.mark.parametrize("normalizer", ["none", "dataset", "rms", "min_max", "quantiles"])
def test_weights_of_any_normalizer_forecast_as_their_run_does(
    normalizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By numbers: the error of the report, after export and loading, and the same from a folder saved again."""
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "of-others", QUANTILES)
    write_prepared(tmp_path / "one.h5", 287 + 10 * waves(6, 12, 16))
    write_prepared(tmp_path / "two.h5", 1e3 + waves(6, 10, 16, channels=2))
    config = tmp_path / "experiment.toml"
    config.write_text(EXPERIMENT + f'[normalizer]\ntype = "{normalizer}"\n')
    catalog = discover()
    experiment = load_experiment(config, catalog, [f"data.cache={tmp_path / 'cache'}", "evaluation.figures=false"])
    request = Request(experiment=experiment, catalog=catalog, resume=False, stop_at=None, how_to_continue="")
    run(request, Console(file=io.StringIO()))
    export_run(str(tmp_path / "run"), tmp_path / "weights", catalog)
    opframe.load_pretrained(tmp_path / "weights").save(tmp_path / "saved")
    places = [opframe.load_pretrained(tmp_path / name) for name in ("run", "weights", "saved")]
    for title, truth in (("one", 287 + 10 * waves(6, 12, 16)), ("two", 1e3 + waves(6, 10, 16, channels=2))):
        frames = torch.from_numpy(truth[-2:]).permute(0, 3, 4, 1, 2)
        history, report = experiment.data.history, json.loads((tmp_path / "run" / "report.json").read_text())
        scores = next(item["scores"]["model"] for item in report["datasets"] if item["title"] == title)
        given, steps = frames[:, :history], frames.shape[1] - history
        first, *others = (each.forecast(given, steps, dataset=title) for each in places)
        assert all(torch.equal(first, other) for other in others)
        mask = torch.ones(1, 1, frames.shape[2], 16, 16)
        metadata = Metadata(trajectories=2, frames=steps, grid=(16, 16), channels=("u",), predicted=("u",))
        found = RelativeL2().build(FIELDS)(first, frames[:, history:], mask, metadata)
        assert found["relative_l2_rollout"].mean().item() == pytest.approx(scores["full"], rel=1e-4)
    header = read_header(tmp_path / "weights", catalog)
    assert header.normalizer == experiment.normalizer
    assert header.trained is not None
    assert (header.trained.steps, header.trained.seed, header.trained.opframe) == (8, 0, opframe.__version__)


class Recorder(nn.Module):
    """Predicts the last frame, twice, and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: list[Tensor] = []
        self.told: list[Conditions] = []
        self.modes: list[bool] = []

    def forward(self, window: Tensor, conditions: Conditions) -> Prediction:
        self.seen.append(window)
        self.told.append(conditions)
        self.modes.append(self.training)
        return Prediction(field=window[:, -1:].repeat(1, 2, *[1] * (window.ndim - 2)) * self.weight)


def record(title: str) -> DatasetRecord:
    mean, deviation = NUMBERS[title]
    channels = ("temperature",) if title == "air" else ("u", "v")
    state = arrays({"mean": torch.tensor(mean).double(), "deviation": torch.tensor(deviation).double()})
    return DatasetRecord(title=title, channels=channels, units=("K", "m/s")[: len(mean)], state=state)


def weights() -> Weights:
    """Fresh ones, of a network as it would be trained on two datasets, each with its own numbers."""
    backbone = DPOT(width=16, depth=1, heads=2, patch=4)
    header = Header(
        backbone=backbone,
        fields=FIELDS,
        normalizer=MeanAndDeviation(),
        datasets=(record("air"), record("flow")),
        origin=Origin(source="a test"),
    )
    torch.manual_seed(0)
    return Weights(location="here", header=header, weights=backbone.build(FIELDS).state_dict())


@pytest.fixture
def recorded() -> tuple[Pretrained, Recorder]:
    """Weights of two datasets, with a network that remembers."""
    pretrained = Pretrained(weights())
    recorder = pretrained.network = Recorder()
    return pretrained, recorder


def test_a_forecast_takes_the_last_frames_pads_normalises_and_undoes_it(recorded: tuple[Pretrained, Recorder]) -> None:
    pretrained, recorder = recorded
    frames = 287 + 10 * torch.arange(10.0).view(2, 5, 1, 1, 1).expand(2, 5, 1, 8, 8)
    given = frames.clone()
    forecast = pretrained.forecast(frames, 5, dataset="air")
    assert torch.equal(frames, given)
    assert forecast.shape == (2, 5, 1, 8, 8)
    assert torch.allclose(forecast[:, :, 0, 0, 0], torch.tensor([[327.0], [377.0]]).expand(2, 5))
    assert recorder.seen[0].shape == (2, 3, 2, 8, 8)
    assert torch.allclose(recorder.seen[0][0, :, 0, 0, 0], torch.tensor([2.0, 3.0, 4.0]), atol=1e-5)
    assert all((window[:, :, 1] == 1).all() for window in recorder.seen)  # the padding
    assert len(recorder.seen) == 3  # two frames in each call
    assert not forecast.requires_grad
    one = pretrained.forecast(frames[0], 2, dataset="air")
    assert torch.equal(one, forecast[0, :2])
    wide = torch.cat([frames, torch.ones_like(frames)], 2)
    assert torch.equal(pretrained.forecast(wide, 5, dataset="air")[:, :, :1], forecast)
    recorder.train()
    pretrained.forecast(frames, 1, dataset="air")
    assert (recorder.modes, recorder.training) == ([False] * len(recorder.modes), True)


def test_conditions_are_given_by_name_or_whole_or_not_at_all(recorded: tuple[Pretrained, Recorder]) -> None:
    pretrained, recorder = recorded
    frames = torch.ones(2, 3, 2, 8, 8)
    pretrained.forecast(frames, 1, {"buoyancy": 0.5, "viscosity": torch.tensor([1e-3, 1e-4])}, dataset="flow")
    told = recorder.told[-1]
    assert torch.allclose(told.parameters, torch.tensor([[1e-3, 0.5], [1e-4, 0.5]]))
    assert told.dataset.tolist() == [1, 1]
    assert told.time_step.isnan().all()
    pretrained.forecast(frames, 1, dataset="flow")
    assert recorder.told[-1].parameters.isnan().all()
    whole = unknown_conditions(FIELDS, 2, torch.device("cpu"))
    pretrained.forecast(frames, 1, whole, dataset="flow")
    assert torch.equal(recorder.told[-1].dataset, whole.dataset)
    for wrong, words in (
        ({"viscosty": 1.0}, "no parameter 'viscosty'; did you mean 'viscosity'.* was told of: viscosity, buoyancy"),
        ({"viscosity": torch.ones(3)}, r"viscosity has the shape \(3,\), expected one or 2"),
        (unknown_conditions(FIELDS, 3, torch.device("cpu")), r"conditions.parameters are \(3, 2\), expected \(2, 2\)"),
    ):
        with pytest.raises(ConfigError, match=words):
            pretrained.forecast(frames, 1, wrong, dataset="flow")


def test_missing_values_are_missing_in_the_forecast_and_nowhere_else(recorded: tuple[Pretrained, Recorder]) -> None:
    pretrained, recorder = recorded
    frames = torch.full((1, 3, 2, 8, 8), 3.0)
    frames[0, 1, 0, 2, 5] = torch.nan
    forecast = pretrained.forecast(frames, 4, dataset="flow")
    missing = torch.zeros(8, 8, dtype=torch.bool)
    missing[2, 5] = True
    assert torch.equal(recorder.told[0].valid[0, 0], ~missing)
    assert recorder.seen[0][0, 1, 0, 2, 5] == 0
    assert torch.equal(forecast.isnan(), missing.expand_as(forecast))


WRONG_FRAMES = {
    "too few": (2, 3, 8, 8),
    "another number of channels": (3, 2, 8, 8),
    "too few axes": (3, 8, 8),
    "too many axes": (1, 1, 3, 3, 8, 8),
}


@pytest.mark.parametrize("wrong", WRONG_FRAMES)
def test_frames_that_do_not_fit_are_refused(wrong: str) -> None:
    fields = attrs.evolve(FIELDS, channels=("a", "b", "c"), datasets=("air",))
    header = attrs.evolve(weights().header, fields=fields, datasets=(record("air"),))
    pretrained = Pretrained(Weights(location="here", header=header, weights=header.backbone.build(fields).state_dict()))
    for channels in (1, 3):  # of the only dataset there is, and with padding
        assert pretrained.forecast(torch.ones(3, channels, 8, 8), 1).shape == (1, channels, 8, 8)
    words = r"expected \(T, C, \*grid\) or .*, with T of at least 3, C of 1 or 3 \(a, b, c\) and 2 grid axes"
    with pytest.raises(ConfigError, match=words):
        pretrained.forecast(torch.ones(WRONG_FRAMES[wrong]), 1)


def test_what_a_network_cannot_do_is_said(recorded: tuple[Pretrained, Recorder]) -> None:
    with pytest.raises(ConfigError, match="steps = 0"):
        recorded[0].forecast(torch.ones(3, 2, 8, 8), 0, dataset="flow")
    with pytest.raises(WeightsError, match=r"each normalised by its own numbers: air, flow; say of .* dataset='air'"):
        recorded[0].forecast(torch.ones(3, 2, 8, 8), 1)
    with pytest.raises(ConfigError, match=r"the grid \[6, 6\], on which the network cannot work .* for \[8, 8\]"):
        Pretrained(weights()).forecast(torch.ones(3, 2, 6, 6), 1, dataset="flow")


def test_the_header_says_all_that_is_known(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(weights().header, weights().weights, tmp_path / "weights")
    assert read_header(tmp_path / "weights", catalog) == weights().header
    metadata = opframe.load_pretrained(tmp_path / "weights").metadata
    assert [(item.title, item.channels, item.units) for item in metadata.datasets] == [
        ("air", ("temperature",), ("K",)),
        ("flow", ("u", "v"), ("K", "m/s")),
    ]
    call: Call = command_line(monkeypatch, capsys)
    shown = call("weights", "show", tmp_path / "weights").output
    for line in ("parameters: viscosity, buoyancy", "units of flow: u K, v m/s", "  flow: u 1 ± 0.5, v -2 ± 4"):
        assert f"{line}\n" in shown


OLD = """
format = 1
[backbone]
type = "dpot"
[fields]
channels = ["temperature"]
grid = [8, 8]
history = 3
datasets = ["air"]
[origin]
source = "an older run"
normalization = "dataset"
[[normalization]]
dataset = "air"
channels = ["temperature"]
mean = [287.0]
deviation = [10.0]
"""


def test_headers_that_were_written_before_mean_the_same(catalog: Catalog) -> None:
    header = parse_header(OLD.encode(), catalog, "old")
    assert header.normalizer == MeanAndDeviation()
    assert header.datasets == (attrs.evolve(record("air"), units=()),)
    plain = OLD[: OLD.index("normalization =")]
    assert parse_header(plain.encode(), catalog, "old").normalizer is None
    for wrong, words in (
        (OLD.replace('"dataset"\n[[', '"none"\n[['), "air has a state, but there is no normalizer to take it"),
        (OLD.replace("[10.0]", "[0.0]"), "what frames are divided by above 0"),
        (OLD.replace("mean =", "meen ="), "unknown key 'meen'"),
        (OLD.replace('"dataset"\n[[', '"datset"\n[['), "unknown normalizer 'datset'; did you mean 'dataset'"),
    ):
        with pytest.raises(WeightsError, match=words):
            parse_header(wrong.encode(), catalog, "old")


def test_a_network_is_uploaded_to_the_hub_as_it_is_now(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []

    class Api:
        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
            if repo_id == "no/access":
                raise OSError("401")
            calls.append((repo_id, private, exist_ok))

        def upload_folder(self, *, repo_id: str, folder_path: Path) -> None:
            calls.append((repo_id, sorted(path.name for path in folder_path.iterdir())))
            folder_path.rename(tmp_path / "uploaded")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    pretrained = Pretrained(weights())
    with torch.no_grad():
        next(pretrained.network.parameters()).fill_(0.25)
    assert pretrained.push_to_hub("some/network", private=True) == "hf://some/network"
    assert calls == [
        ("some/network", True, True),
        ("some/network", ["config.toml", "model.safetensors"]),
    ]
    again = opframe.load_pretrained(tmp_path / "uploaded")
    assert (next(again.network.parameters()) == 0.25).all()
    with pytest.raises(WeightsError, match=r"no/access: cannot be uploaded \(401\)"):
        pretrained.push_to_hub("no/access")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"pip install \"opframe\[hub\]\""):
        pretrained.push_to_hub("some/network")
