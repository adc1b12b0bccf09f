"""Data are normalised by statistics that are right, computed once, and known by what they are of."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from conftest import Command
from opframe.config.settings import Experiment
from opframe.mixture import statistics
from opframe.mixture.normalization import Normalization
from opframe.mixture.source import read_frames
from opframe.run import assembly
from opframe.run.experiment import load_experiment
from opframe_registry import Catalog, DataError, Fields
from support import waves, write_prepared
from tests.evaluation.test_evaluation import SumOfLastTwo, evaluator
from tests.mixture.test_data_protocol import in_memory


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
    return load_experiment(experiment, catalog, ["data.normalization=dataset", f"data.cache={folder / 'cache'}"])


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
    assert known is not None
    assert known.mean == pytest.approx(values.mean(0), rel=1e-12)
    assert known.deviation == pytest.approx(values.std(0), rel=1e-9)


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
    assert known is not None
    assert known.mean == pytest.approx([values.mean()])
    assert known.deviation == pytest.approx([values.std()])


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
    assert known is not None
    assert known.deviation == pytest.approx([2**0.5], rel=1e-3)


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
    assert not (Path(normalised.data.cache) / "statistics").exists()


def test_damaged_statistics_are_an_error_that_says_what_to_do(normalised: Experiment) -> None:
    assembly.prepare_data(normalised, ignored)
    for path in stored(normalised):
        path.write_text(path.read_text()[:20])
    with pytest.raises(DataError, match=r"prepared-\w+\.json: cannot be read .* delete it"):
        assembly.open_sources(normalised)


def test_a_constant_channel_is_only_shifted(catalog: Catalog, tmp_path: Path, experiment: Path) -> None:
    write_prepared(experiment.parent / "one.h5", np.full((6, 16, 16, 12, 1), 0.1, "f4"))
    overrides = ["data.normalization=dataset", f"data.cache={tmp_path / 'cache'}"]
    given = load_experiment(experiment, catalog, overrides)
    assembly.prepare_data(given, ignored)
    known = assembly.open_sources(given).train[0].normalization
    assert known is not None
    assert (known.mean, known.deviation) == ((pytest.approx(0.1),), (1.0,))


def test_a_model_sees_normalised_data_and_errors_are_in_physical_units() -> None:
    """Persistence and the line through two frames do not depend on units, the sum of two frames does."""
    plain = evaluator()
    source = attrs.evolve(plain.sources[0], normalization=Normalization(mean=(100.0, 7.0), deviation=(4.0, 2.0)))
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
    options = ("--set", "data.normalization=dataset", "--set", f"data.cache={normalised.data.cache}")
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
