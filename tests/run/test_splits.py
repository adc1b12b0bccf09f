"""Training goes by validation data alone: test data are read for the final report, and for nothing before."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from data_support import Command, command
from opframe.mixture.validation import held_out, in_words
from opframe.processes import Processes
from opframe.run import assembly
from opframe.run.checkpoint import Checkpoints
from opframe.run.experiment import load_experiment
from opframe.weights.checkpoints import CheckpointRecord, read_best
from opframe.weights.runs import chosen_checkpoint
from opframe_registry import Catalog, ConfigError, DataError
from plugin_support import install
from support import EXPERIMENT, waves, write_prepared

__all__ = ["command"]

WATCHED = '''
from pathlib import Path
from typing import ClassVar, final

import numpy as np
from attrs import define, frozen
from opframe_registry import DataError, Dataset, Metadata, hookimpl


@define
class Watched:
    metadata: Metadata
    waits_for: str

    def read(self, trajectory, start, stop):
        if self.waits_for and not Path(self.waits_for).exists():
            raise DataError(f"test data were read before there was {self.waits_for}")
        frames, points = np.arange(start, stop), np.linspace(0, 6, 16)
        phase = 0.1 * frames[:, None, None] + points[:, None] + 2 * points[None, :] + trajectory
        return np.sin(phase)[:, None].astype("f4")


@final
@frozen(kw_only=True)
class WatchedDataset(Dataset):
    """Waves, whose test data cannot be read before a file is there."""

    name: ClassVar[str] = "watched"
    waits_for: str = ""
    validated: int = 0

    def splits(self):
        return ("train", "validation", "test") if self.validated else ("train", "test")

    def build(self, split, cache):
        count = {"train": 8, "validation": self.validated, "test": 3}[split]
        metadata = Metadata(
            trajectories=count, frames=12, grid=(16, 16), channels=("u",), predicted=("u",), boundary="periodic"
        )
        return Watched(metadata, self.waits_for if split == "test" else "")


@hookimpl
def opframe_components():
    return [WatchedDataset]
'''


def watched(folder: Path, waits_for: Path) -> Path:
    """An experiment on two such datasets, one with validation data of its own, one of which some are held out."""
    install(folder, "watched-data", WATCHED)
    head, rest = EXPERIMENT.split("[[datasets]]")[0], EXPERIMENT[EXPERIMENT.index("[sampler]") :]
    tables = [
        f'[[{key}]]\ntype = "watched"\nlabel = "{label}"\nwaits_for = "{waits_for}"\n{more}\n'
        for key, label, more in (
            ("datasets", "own", "validated = 2"),
            ("datasets", "held", "exclude = [0]\nvalidation = 3"),
            ("zero_shot", "other", ""),
        )
    ]
    more = f'normalization = "dataset"\ncache = "{folder / "cache"}"\nworkers = 1\n'
    path = folder / "experiment.toml"
    rest = rest.replace("[trainer]\n", "[trainer]\nevaluate_every = 4\n")
    path.write_text("".join([head, more, *tables, rest]))
    return path


def test_test_data_are_read_when_training_is_over_and_checkpoints_go_by_validation(
    site: Path, command: Command
) -> None:
    run = site / "run"
    done = command("run", watched(site, run / "checkpoints" / "step-00000008" / "mark.json"))
    assert done.returncode == 0, done.stderr
    assert "own: validation by 2 trajectories of its validation split" in done.stdout
    assert "held: validation by 3 of 7 training trajectories, held out: 2, 4, 6" in done.stdout
    report = json.loads((run / "report.json").read_text())
    assert [(item["title"], item["trajectories"]) for item in report["datasets"]] == [
        ("own", 3),
        ("held", 3),
        ("other", 3),
    ]
    assert [(item["title"], item["trajectories"]) for item in report["validation"]] == [("own", 2), ("held", 3)]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    errors = {line["step"]: line["mean/full"] for line in lines if line["kind"] == "evaluation"}
    assert {*errors} == {4, 8}
    best = read_best(run / "checkpoints")
    assert best is not None
    assert (best.step, best.split) == (min(errors, key=errors.__getitem__), "validation")
    assert best.error == pytest.approx(min(errors.values()))
    last = sum(item["scores"]["model"]["full"] for item in report["validation"]) / 2
    assert last == pytest.approx(errors[8])
    page = (run / "report.md").read_text()
    assert f"the least error on validation trajectories while training, {best.error:.4f}, was that of step" in page
    assert "Test trajectories: own 3, held 3, other 3." in page
    assert "## L2RE on validation trajectories" in page
    assert "selected by the least error on validation data" in chosen_checkpoint(run, "best").how


def test_such_a_dataset_does_refuse_where_test_data_are_read_too_early(site: Path, command: Command) -> None:
    path = watched(site, site / "never")
    done = command("run", path)
    assert done.returncode == 2
    assert f"test data were read before there was {site / 'never'}" in done.stderr
    assert (site / "run" / "checkpoints" / "step-00000008" / "mark.json").exists()
    assert not (site / "run" / "report.json").exists()


def test_without_validation_data_nothing_is_evaluated_or_selected_in_training(
    experiment: Path, command: Command
) -> None:
    checked = command("check", experiment, "--set", "trainer.evaluate_every=2")
    done = command("run", experiment, "--set", "trainer.evaluate_every=2")
    assert (checked.returncode, done.returncode) == (0, 0), done.stderr
    for printed in (checked.stdout, done.stdout):
        assert printed.count("there are no validation data: nothing is evaluated while training") == 1
        assert "data.validation = 0.1 would hold out a tenth" in printed
    run = experiment.parent / "run"
    assert not (run / "checkpoints" / "best.json").exists()
    assert '"kind": "evaluation"' not in (run / "metrics.jsonl").read_text()
    assert "- evaluated as the last step left it; nothing was selected\n" in (run / "report.md").read_text()
    assert json.loads((run / "report.json").read_text())["validation"] == []


@given(st.integers(2, 200), st.data())
def test_held_out_trajectories_are_spread_evenly(count: int, data: st.DataObject) -> None:
    shares = st.floats(0, 1).filter(lambda share: round(share * count) < count)
    wanted = data.draw(st.integers(0, count - 1) | shares)
    places = held_out(wanted, count)
    assert len(places) == (wanted if isinstance(wanted, int) else max(round(wanted * count), wanted > 0))
    assert sorted({*places}) == [*places]
    steps = [later - earlier for earlier, later in itertools.pairwise(places)]
    assert not steps or max(steps) - min(steps) <= 1
    if places:
        assert abs(places[0] - (count - 1 - places[-1])) <= 1


def test_what_is_held_out_is_neither_trained_on_nor_excluded(experiment: Path, catalog: Catalog) -> None:
    write_prepared(experiment.parent / "one.h5", waves(22, 12, 16))  # 20 for training
    settings = ["data.validation=0.2", "datasets.0.exclude=[3,4]", "datasets.1.validation=0"]
    sources = assembly.open_sources(load_experiment(experiment, catalog, settings))
    train, (validation,) = sources.train, sources.validation
    trained = {train[0].number(index) for index in range(train[0].metadata.trajectories)}
    checked = {validation.number(index) for index in range(validation.metadata.trajectories)}
    assert (len(trained), checked) == (14, {2, 8, 13, 17})
    assert trained | checked == {*range(20)} - {3, 4}
    assert (validation.read(1, 0, 2) == train[0].trajectories.read(8, 0, 2)).all()
    assert in_words(train, sources.validation) == [
        "one: validation by 4 of 18 training trajectories, held out: 2, 8, 13, 17",
        "two: no validation",
    ]


def test_what_would_leave_nothing_to_train_on_is_refused(experiment: Path, catalog: Catalog) -> None:
    given_ = load_experiment(experiment, catalog, ["data.validation=4"])
    with pytest.raises(DataError, match=r"one: data\.validation = 4 holds out 4 of 4 trajectories, which leaves noth"):
        assembly.open_sources(given_)
    own = evolve(given_, datasets=(evolve(given_.datasets[0], validation=1), given_.datasets[1]))
    with pytest.raises(DataError, match=r"two: data\.validation = 4 holds out"):
        assembly.open_sources(own)
    with pytest.raises(ConfigError, match=r"data: validation = 1\.5: expected a whole number of trajectories"):
        load_experiment(experiment, catalog, ["data.validation=1.5"])


def test_errors_on_other_data_are_not_compared(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 1, Processes(rank=0, count=1, device=torch.device("cpu")))
    records = [
        CheckpointRecord(step=1, processes=1, error=0.1),  # by test data, as it was before there were validation data
        CheckpointRecord(step=2, processes=1, error=0.3, split="validation"),
        CheckpointRecord(step=3, processes=1, error=0.4, split="validation"),
        CheckpointRecord(step=4, processes=1, error=None, split="validation"),
    ]
    found = []
    for record in records:
        checkpoints.save({"weight": torch.ones(2)}, record)
        found.append(read_best(tmp_path))
    assert found == [records[0], records[1], records[1], records[1]]
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000002", "step-00000004"]
