"""Data are normalised by statistics that are right, computed once, and known by what they are of."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from attrs import frozen
from numpy.typing import NDArray

from conftest import Command
from opframe.config.settings import Experiment
from opframe.mixture import statistics
from opframe.mixture.source import read_frames
from opframe.mixture.statistics import Statistics
from opframe.run import assembly
from opframe.run.experiment import load_experiment
from opframe_normalizers import MeanAndDeviation, Range, RootMeanSquare
from opframe_normalizers.live import Linear, ToDeviation
from opframe_prepared import Prepared
from opframe_registry import (
    Catalog,
    ConfigError,
    DataError,
    Fields,
    Metadata,
    Normalization,
    Normalizer,
    PluginError,
)
from support import waves, write_prepared
from tests.evaluation.test_evaluation import SumOfLastTwo, evaluator
from tests.mixture.test_data_protocol import InMemory, in_memory


def ignored(what: str, done: int, total: int) -> None:
    """Nobody looks at the progress."""


def growing() -> NDArray[np.float32]:
    """Waves of which the mean and the height grow in time."""
    return (5 + waves(3, 10, 16)) * np.arange(1, 11, dtype="f4")[:, None]


@pytest.fixture
def normalised(experiment: Path, catalog: Catalog) -> Experiment:
    """The small experiment with large means, a zero-shot dataset, and normalisation."""
    folder = experiment.parent
    write_prepared(folder / "two.h5", 1e4 + waves(6, 10, 16, channels=2) * np.array([1, 30], "f4"))
    write_prepared(folder / "other.h5", growing())
    with experiment.open("a") as file:
        file.write('[[zero_shot]]\ntype = "prepared"\nlabel = "other"\nurl = "other.h5"\ntest = 2\n')
    return load_experiment(experiment, catalog, ["normalizer.type=dataset", f"data.cache={folder / 'cache'}"])


def learnt(normalization: Normalization | None) -> dict[str, list[float]]:
    """The numbers that frames are normalised by."""
    assert normalization is not None
    return {name: value.tolist() for name, value in normalization.state_dict().items()}


def stored(experiment: Experiment) -> list[Path]:
    return sorted((Path(experiment.data.cache) / "statistics").iterdir())


def test_statistics_are_of_all_frames_of_the_training_trajectories(
    normalised: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_BLOCK", 3 * 16 * 16 * 2 * 4)  # three frames at a time
    assembly.prepare_data(normalised, ignored)
    sources = assembly.open_sources(normalised)
    values = (1e4 + waves(6, 10, 16, channels=2) * np.array([1, 30], "f4"))[:4].astype("f8").reshape(-1, 2)
    known = sources.train[1].normalization
    assert known == sources.test[1].normalization
    assert learnt(known)["mean"] == pytest.approx(values.mean(0), rel=1e-12)
    assert learnt(known)["deviation"] == pytest.approx(values.std(0), rel=1e-9)


def test_a_training_window_has_mean_0_and_deviation_1_and_its_padding_is_untouched(normalised: Experiment) -> None:
    assembly.prepare_data(normalised, ignored)
    sources = assembly.open_sources(normalised)
    one, two = sources.train
    frames = torch.stack([read_frames(two, index, 0, 10, sources.fields) for index in range(4)])
    assert frames.mean((0, 1, 3, 4)).tolist() == pytest.approx([0, 0], abs=1e-3)
    assert frames.std((0, 1, 3, 4)).tolist() == pytest.approx([1, 1], rel=1e-3)
    assert (read_frames(one, 0, 0, 3, sources.fields)[:, 1] == 1).all()
    restored = two.physical(frames)[2]
    plain = read_frames(attrs.evolve(two, normalization=None), 2, 0, 10, sources.fields)
    assert torch.allclose(restored, plain, rtol=1e-6)


def test_zero_shot_data_go_by_the_history_that_a_model_is_given(normalised: Experiment) -> None:
    assembly.prepare_data(normalised, ignored)
    values = growing()[1:, :, :, :4].astype("f8")
    sources = assembly.open_sources(normalised)
    assert sources.zero_shot[0].normalization is None  # nothing is read of them before the report
    assembly.prepare_zero_shot(normalised, sources, ignored)
    known = assembly.normalised_zero_shot(normalised, sources).zero_shot[0].normalization
    assert learnt(known) == {"mean": pytest.approx([values.mean()]), "deviation": pytest.approx([values.std()])}


def test_statistics_are_computed_once_and_again_when_the_data_change(normalised: Experiment) -> None:
    assembly.prepare_data(normalised, ignored)
    before = {path: path.stat().st_mtime_ns for path in stored(normalised)}
    assert len(before) == 2
    assembly.prepare_data(normalised, ignored)
    one, two = normalised.datasets
    relabelled = attrs.evolve(normalised, datasets=(attrs.evolve(one, label="uno", weight=3.0, rollout=2), two))
    assembly.prepare_data(relabelled, ignored)
    assert {path: path.stat().st_mtime_ns for path in stored(normalised)} == before
    write_prepared(Path(normalised.run.folder).parent / "one.h5", 2 * waves(6, 12, 16))
    with pytest.raises(DataError, match=r"one: .* the statistics of these data are not known yet; 'opframe run'"):
        assembly.open_sources(normalised)
    assembly.prepare_data(normalised, ignored)
    assert len(stored(normalised)) == 3
    known = assembly.open_sources(normalised).train[0].normalization
    assert learnt(known)["deviation"] == pytest.approx([2**0.5], rel=1e-3)


@pytest.mark.parametrize("change", [{"stride": 2}, {"exclude": (1,)}, {"test": 3}, {"train": 2}])
def test_settings_that_change_what_is_averaged_have_statistics_of_their_own(
    normalised: Experiment, change: dict[str, object]
) -> None:
    assembly.prepare_data(normalised, ignored)
    one, two = normalised.datasets
    changed = attrs.evolve(normalised, datasets=(attrs.evolve(one, **change), two))
    with pytest.raises(DataError, match="not known yet"):
        assembly.open_sources(changed)


def test_a_value_that_is_not_finite_is_named(normalised: Experiment) -> None:
    values = waves(6, 12, 16)
    values[2, 3, 5, 7] = np.nan
    write_prepared(Path(normalised.run.folder).parent / "one.h5", values)
    with pytest.raises(
        DataError, match=r"one: trajectory 2 holds nan in frame 7, channel 'c0', at grid point \(3, 5\)"
    ):
        assembly.prepare_data(normalised, ignored)
    assert not any((Path(normalised.data.cache) / "statistics").iterdir())


def test_missing_values_are_left_out_and_others_must_be_finite(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(5, 2, (2, 6, 2, 4, 4)).astype("f4")
    values[:, :, 1, :2] = -9999
    values[1, 3:] = np.inf  # beyond the end of the second trajectory
    plain = in_memory(values)
    metadata = attrs.evolve(plain.metadata, missing=-9999.0, lengths=(6, 3))
    known = Statistics(
        component=Prepared(url="nothing.h5", channels=("a", "b")),
        source=attrs.evolve(plain, trajectories=InMemory(metadata, values)),
        frames=6,
        cache=tmp_path,
        normalizer=MeanAndDeviation(),
    )
    known.prepare(ignored)
    seen = np.concatenate([values[0], values[1, :3]]).astype("f8")
    first, second = seen[:, 0], seen[:, 1, 2:]
    found = learnt(known.read())
    assert found["mean"] == pytest.approx([first.mean(), second.mean()], rel=1e-12)
    assert found["deviation"] == pytest.approx([first.std(), second.std()], rel=1e-9)
    values[0, 2, 1, 3, 3] = np.inf
    with pytest.raises(DataError, match=r"holds inf in frame 2, channel 'c1', at grid point \(3, 3\)"):
        attrs.evolve(known, frames=5).prepare(ignored)


def test_each_normalizer_has_statistics_of_its_own(normalised: Experiment) -> None:
    for normalizer in (Range(), Range(lowest=0), RootMeanSquare()):
        assembly.prepare_data(attrs.evolve(normalised, normalizer=normalizer), ignored)
    assert len(stored(normalised)) == 6  # zero-shot data are looked at for the report alone
    sources = assembly.open_sources(attrs.evolve(normalised, normalizer=Range(lowest=0)))
    frames = torch.stack([read_frames(sources.train[1], index, 0, 10, sources.fields) for index in range(4)])
    assert frames.amin((0, 1, 3, 4)).tolist() == [0, 0]
    assert frames.amax((0, 1, 3, 4)).tolist() == [1, 1]
    with pytest.raises(DataError, match=r"normalizer.type = 'dataset', but the statistics .* not known"):
        assembly.open_sources(normalised)


class Odd:
    """A normalization that fails at what it is asked for."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def fit(self, frames: Iterable[torch.Tensor]) -> None:
        if self.fault == "fit":
            raise RuntimeError("out of ideas")

    def apply(self, frames: torch.Tensor) -> torch.Tensor:
        return frames[:1] if self.fault == "apply" else frames

    def restore(self, frames: torch.Tensor) -> torch.Tensor | None:
        return None if self.fault == "restore" else frames.clone()

    def state_dict(self) -> dict[str, Any]:
        return {"mean": 3.0} if self.fault == "state_dict" else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.fault == "load_state_dict":
            raise KeyError("mean")


@frozen(kw_only=True)
class OddNormalizer(Normalizer):
    """Fails."""

    name = "odd"
    fault: str

    def build(self, metadata: Metadata) -> Odd:
        return Odd(self.fault)


FAULTS = {
    "fit": "fit raised RuntimeError: out of ideas",
    "state_dict": "state_dict has a float; expected tensors",
    "load_state_dict": "load_state_dict raised KeyError",
    "apply": r"apply returned \(1, 1, 16, 16\); expected frames \(3, 1, 16, 16\)",
    "restore": "restore returned NoneType; expected frames",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_normalizer_that_is_wrong_is_named(fault: str, normalised: Experiment) -> None:
    experiment = attrs.evolve(normalised, normalizer=OddNormalizer(fault=fault))

    def used() -> None:
        assembly.prepare_data(experiment, ignored)
        source, fields = assembly.open_sources(experiment).train[0], Fields(channels=("a",), grid=(16, 16), history=3)
        source.physical(read_frames(source, 0, 0, 3, fields)[None])

    with pytest.raises(PluginError, match=f"normalizer 'odd' of the plugin .*{FAULTS[fault]}"):
        used()


def test_the_old_key_means_the_same_and_is_said_once(
    experiment: Path, catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = load_experiment(experiment, catalog, ["data.normalization=dataset"])
    assert loaded.normalizer == MeanAndDeviation()
    said = "data.normalization is now a table: [normalizer] type = 'dataset'; it means the same"
    assert [said in record.getMessage() for record in caplog.records] == [True]
    for word in ("none", "dataset"):
        both = [f"data.normalization={word}", f"normalizer.type={word}"]
        assert load_experiment(experiment, catalog, both).normalizer.name == word
    with pytest.raises(ConfigError, match=r"data.normalization = 'none' is an old key .* is 'rms'; leave out"):
        load_experiment(experiment, catalog, ["data.normalization=none", "normalizer.type=rms"])
    with pytest.raises(ConfigError, match=r"unknown normalizer 'datset'; did you mean 'dataset'"):
        load_experiment(experiment, catalog, ["data.normalization=datset"])


def test_damaged_statistics_are_an_error_that_says_what_to_do(normalised: Experiment) -> None:
    assembly.prepare_data(normalised, ignored)
    for path in stored(normalised):
        path.write_text(path.read_text()[:20])
    with pytest.raises(DataError, match=r"prepared-\w+\.json: cannot be read .* delete it"):
        assembly.open_sources(normalised)


def test_a_constant_channel_is_only_shifted(catalog: Catalog, tmp_path: Path, experiment: Path) -> None:
    write_prepared(experiment.parent / "one.h5", np.full((6, 16, 16, 12, 1), 0.1, "f4"))
    overrides = ["normalizer.type=dataset", f"data.cache={tmp_path / 'cache'}"]
    given = load_experiment(experiment, catalog, overrides)
    assembly.prepare_data(given, ignored)
    known = assembly.open_sources(given).train[0].normalization
    assert learnt(known) == {"mean": [pytest.approx(0.1)], "deviation": [1.0]}


def test_a_model_sees_normalised_data_and_errors_are_in_physical_units() -> None:
    """Persistence and the line through two frames do not depend on units, the sum of two frames does."""
    plain = evaluator()
    known = Linear(plain.sources[0].metadata, ToDeviation())
    known.load_state_dict({"mean": torch.tensor([100.0, 7.0]), "deviation": torch.tensor([4.0, 2.0])})
    source = attrs.evolve(plain.sources[0], normalization=known)
    one = plain.evaluate(SumOfLastTwo(1)).datasets[0].scores
    two = attrs.evolve(plain, sources=[source]).evaluate(SumOfLastTwo(1)).datasets[0].scores
    for name in ("persistence", "linear"):
        assert two[name].frames == pytest.approx(one[name].frames, rel=1e-4)
    # trajectory i: the model adds (8 s - 100) / 4 and (4 s - 100) / 4 and gets 12 s - 100 in physical units, s = i + 1
    first = np.mean([abs(12 * s - 100 - 16 * s) / (16 * s) for s in range(1, 6)])
    assert two["model"].first == pytest.approx(first, rel=1e-4)


def test_normalisation_leaves_data_without_it_bit_for_bit_as_they_were() -> None:
    values = np.random.default_rng(0).normal(size=(1, 3, 1, 4, 4)).astype("f4")
    source, fields = in_memory(values), Fields(channels=("a",), grid=(4, 4), history=1)
    frames = read_frames(source, 0, 0, 3, fields)
    assert torch.equal(frames, torch.from_numpy(values[0]))
    assert source.physical(frames) is frames


def test_a_normalised_run_says_what_it_prepares_and_reports_physical_errors(
    normalised: Experiment, experiment: Path, opframe: Command
) -> None:
    options = ("--set", "normalizer.type=dataset", "--set", f"data.cache={normalised.data.cache}")
    unknown = opframe("check", experiment, *options)
    assert unknown.returncode == 0, unknown.stderr
    words = "its statistics are not known yet; 'opframe run' computes them, once, from"
    for line in (
        f"one: {words} 12 frames of each of 4 trajectories",
        f"other: {words} 4 frames of each of 2 trajectories",
    ):
        assert line in unknown.stdout
    assert "ready to run" in unknown.stdout
    assert not (Path(normalised.data.cache) / "statistics").exists()
    wrong = opframe("check", experiment, *options, "--set", "data.channels=1")
    assert (wrong.returncode, "data.channels = 1, but two has 2 channels" in wrong.stderr) == (2, True)
    done = opframe("run", experiment, *options)
    assert done.returncode == 0, done.stderr
    known = opframe("check", experiment, *options)
    assert (known.returncode, "not known yet" in known.stdout) == (0, False)
    assert "preparing two (statistics) 4/4" in done.stdout
    report = json.loads((experiment.parent / "run" / "report.json").read_text())
    persistence = {item["title"]: item["scores"]["persistence"]["full"] for item in report["datasets"]}
    assert persistence["two"] < 0.01 < persistence["one"]  # of values near 10,000; normalised they would be alike
