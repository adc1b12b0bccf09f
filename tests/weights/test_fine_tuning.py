"""Beginning from trained weights, freezing, evaluating without training, and comparing runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from support import EXPERIMENT, saved_state, waves, write_experiment, write_prepared

Command = Callable[..., subprocess.CompletedProcess[str]]

FINE_TUNING = """
include = "experiment.toml"
[run]
folder = "tuned"
[init]
from = "run"
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two datasets, an experiment on them, and its finished run."""
    folder = tmp_path_factory.mktemp("original")
    write_experiment(folder)
    subprocess.run([sys.executable, "-m", "opframe", "run", folder / "experiment.toml"], check=True)
    return folder


@pytest.fixture
def trained(original: Path, tmp_path: Path) -> Path:
    """The folder of a finished run, free to be written beside."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


def fine_tuning(trained: Path, more: str = "", base: str = EXPERIMENT) -> Path:
    """A config that begins from that run, and says no word of the backbone."""
    before, after = base.index("[backbone]"), base.index("[objective]")
    (trained.parent / "experiment.toml").write_text(base[:before] + base[after:])
    path = trained.parent / "tune.toml"
    path.write_text(FINE_TUNING + more)
    return path


def test_a_run_begins_with_the_weights_of_another_and_says_what_was_taken(trained: Path, opframe: Command) -> None:
    config = fine_tuning(trained)
    done = opframe("run", config, "--stop-at", 1, "--set", "optimizer.learning_rate=0")
    assert done.returncode == 0, done.stderr
    assert "weights from" in done.stdout
    assert "copied" in done.stdout
    before, after = saved_state(trained, 8)["model"], saved_state(trained.parent / "tuned", 1)["model"]
    assert before.keys() == after.keys()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    report = json.loads((trained.parent / "tuned" / "init.json").read_text())
    assert {entry["status"] for entry in report["tensors"]} == {"copied"}
    resolved = tomllib.loads((trained.parent / "tuned" / "config.toml").read_text())
    assert resolved["backbone"]["type"] == "dpot"
    assert resolved["backbone"]["width"] == 32


def test_a_resumed_run_goes_on_from_its_own_weights(trained: Path, opframe: Command) -> None:
    config = fine_tuning(trained)
    assert opframe("run", config, "--stop-at", 4).returncode == 0
    done = opframe("run", config, "--resume")
    assert done.returncode == 0, done.stderr
    assert "weights from" not in done.stdout
    straight = opframe("run", config, "--set", f"run.folder={trained.parent / 'straight'}")
    assert straight.returncode == 0, straight.stderr
    one, two = (saved_state(trained.parent / name, 8)["model"] for name in ("tuned", "straight"))
    assert all(torch.equal(weight, two[name]) for name, weight in one.items())


def test_parts_alone_are_taken_and_learn_at_their_own_rate(trained: Path, opframe: Command) -> None:
    config = fine_tuning(
        trained,
        'components = ["blocks"]\n[backbone]\npatch = 8\n[[parameters]]\nmatch = ["blocks"]\nlearning_rate = 1e-9\n'
        '[[parameters]]\nmatch = ["out_layer.*"]\nfrozen = true\n[optimizer]\nweight_decay = 0.0\n',
    )
    done = opframe("run", config)
    assert done.returncode == 0, done.stderr
    assert "not among the components" in done.stdout
    before, after = saved_state(trained, 8)["model"], saved_state(trained.parent / "tuned", 8)["model"]
    for name, weight in after.items():
        if name.startswith("blocks"):
            assert torch.allclose(weight, before[name], atol=1e-6), name
    begun = opframe("run", config, "--stop-at", 1, "--set", f"run.folder={trained.parent / 'begun'}")
    assert begun.returncode == 0, begun.stderr
    first = saved_state(trained.parent / "begun", 1)["model"]
    assert torch.equal(first["out_layer.2.weight"], after["out_layer.2.weight"])  # frozen
    assert not torch.equal(first["patch_embed.proj.0.weight"], after["patch_embed.proj.0.weight"])


ROUTED = EXPERIMENT.replace('type = "dpot"', 'type = "moepot"\nrouted_experts = 4\nchosen_experts = 2')


def test_a_frozen_router_stays_as_it_is_through_training_and_evaluation(experiment: Path, opframe: Command) -> None:
    experiment.write_text(ROUTED)
    assert opframe("run", experiment).returncode == 0
    config = fine_tuning(
        experiment.parent / "run",
        '[[parameters]]\nmatch = ["router", "features"]\nfrozen = true\n[objective]\npenalty_weight = 0.0\n'
        "[trainer]\nevaluate_every = 2\nlog_every = 1\n",
        base=ROUTED,
    )
    done = opframe("run", config)
    assert done.returncode == 0, done.stderr
    before, after = (saved_state(experiment.parent / name, 8)["model"] for name in ("run", "tuned"))
    router = [name for name in before if ".gating." in name]
    assert any("temperature" in name for name in router)
    assert any("running_mean" in name for name in router)
    assert all(torch.equal(before[name], after[name]) for name in router)
    assert not torch.equal(before["patch_embed.proj.0.weight"], after["patch_embed.proj.0.weight"])
    kinds = [json.loads(line) for line in (experiment.parent / "tuned" / "metrics.jsonl").read_text().splitlines()]
    assert all("balance" not in entry for entry in kinds if entry["kind"] == "train")


def test_trained_weights_are_evaluated_without_training(trained: Path, opframe: Command) -> None:
    config = fine_tuning(trained)
    done = opframe("evaluate", config)
    assert done.returncode == 0, done.stderr
    reports = [json.loads((trained.parent / name / "report.json").read_text()) for name in ("run", "tuned")]
    assert reports[0]["datasets"] == reports[1]["datasets"]
    assert not (trained.parent / "tuned" / "checkpoints").exists()
    trained_on, evaluated = ((trained.parent / name / "report.md").read_text() for name in ("run", "tuned"))
    assert "- evaluated as the last step left it; nothing was selected\n" in trained_on
    assert f"- weights from {trained}, checkpoint: step-00000008, the last of its run" in evaluated


def test_evaluating_needs_weights(experiment: Path, opframe: Command) -> None:
    done = opframe("evaluate", experiment)
    assert done.returncode == 2
    assert "init.from" in done.stderr


def test_a_channel_slot_that_no_dataset_fills_can_be_kept(experiment: Path, opframe: Command) -> None:
    done = opframe("run", experiment, "--stop-at", 1, "--set", "data.channels=3")
    assert done.returncode == 0, done.stderr
    header = tomllib.loads((experiment.parent / "run" / "model.toml").read_text())
    assert len(header["fields"]["channels"]) == 3
    write_prepared(experiment.parent / "one.h5", waves(4, 10, 16, channels=2))
    refused = opframe("check", experiment, "--set", "data.channels=1")
    assert refused.returncode == 2
    assert "data.channels = 1, but one has 2 channels" in refused.stderr


def test_the_classification_head_learns_and_its_accuracy_is_reported(experiment: Path, opframe: Command) -> None:
    settings = ("--set", "backbone.classes=2", "--set", "objective.classification_weight=0.5")
    done = opframe("run", experiment, *settings)
    assert done.returncode == 0, done.stderr
    report = json.loads((experiment.parent / "run" / "report.json").read_text())
    assert all(0 <= item["recognised"] <= 1 for item in report["datasets"])
    assert "classification head assigns to their dataset: one " in done.stdout.replace("\n", " ")
    first = json.loads((experiment.parent / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert 0.2 < first["classification"] < 0.6  # half of about ln 2
    refused = opframe("run", experiment, settings[2], settings[3], "--set", f"run.folder={experiment.parent / 'other'}")
    assert refused.returncode == 2
    assert "backbone.classes" in refused.stderr


def test_finished_runs_are_compared_in_a_table_and_against_a_key(trained: Path, opframe: Command) -> None:
    config, other = trained.parent / "experiment.toml", trained.parent / "wide"
    assert opframe("run", config, "--set", "data.batch_size=2", "--set", f"run.folder={other}").returncode == 0
    out = trained.parent / "comparison"
    done = opframe("compare", trained, other, "--by", "data.batch_size", "--out", out)
    assert done.returncode == 0, done.stderr
    text = (out / "comparison.md").read_text()
    full = json.loads((other / "report.json").read_text())["datasets"][1]["scores"]["model"]["full"]
    assert "| wide | 2 | " in text
    assert f"{full:.4f}" in text
    assert "| persistence |" in text
    assert (out / "comparison.png").stat().st_size > 5000
    unknown = opframe("compare", trained, "--by", "data.batchsize")
    assert unknown.returncode == 2
    assert "there is no key 'data.batchsize'" in unknown.stderr
    unfinished = opframe("compare", trained.parent / "nothing")
    assert unfinished.returncode == 2
    assert "not a finished run" in unfinished.stderr
