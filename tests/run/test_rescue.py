"""Bad steps are left out or taken back where the callback `rescue` is asked for it, and training can be resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

from opframe.weights.runs import read_checkpoint
from support import assert_same_training
from weights_support import Call

RESCUE = ("--set", "evaluation.overlap=false", "--set", "trainer.steps=20", "--set", "trainer.log_every=1")


@pytest.fixture
def spoilt(experiment: Path) -> Path:
    """The experiment with one trajectory of `one` so large that no loss of it is finite."""
    with h5py.File(experiment.parent / "one.h5", "r+") as file:
        file["data"][3] *= 1e25
    return experiment


def rescued(experiment: Path, **keys: object) -> Path:
    """The experiment with the callback."""
    lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
    path = experiment.with_name("rescued.toml")
    path.write_text(f'{experiment.read_text()}[[callbacks]]\ntype = "rescue"\n{lines}')
    return path


def left_out(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "left_out.jsonl").read_text().splitlines()]


def test_steps_that_are_not_finite_are_left_out_and_their_windows_written_down(
    spoilt: Path, cli: Call, opframe: Any
) -> None:
    run = spoilt.parent / "run"
    assert cli("run", spoilt, *RESCUE).code == 2  # without it
    config = rescued(spoilt, patience=20)
    done = cli("run", config, *RESCUE, "--set", f"run.folder={run.with_name('whole')}")
    assert done.code == 0, done.errors
    found = left_out(run.with_name("whole"))
    assert 0 < len(found) < 20
    for each in found:
        assert any(title == "one" and number == 3 for title, number, _ in each["windows"])
        assert len(each["windows"]) == 4
        assert f"step {each['step']} left out: loss " in done.output
    lines = [json.loads(line) for line in (run.with_name("whole") / "metrics.jsonl").read_text().splitlines()]
    bad = {line["step"] for line in lines if line["kind"] == "train" and line["relative_l2"] is None}
    assert bad == {each["step"] for each in found}
    for stop in (7, 13, 20):  # twice interrupted, it is the same to the bit
        assert cli("run", config, *RESCUE, "--resume", "--stop-at", stop).code == 0
    assert_same_training(run, run.with_name("whole"), 20)
    several = run.with_name("several")
    assert opframe("run", config, *RESCUE, "--nproc", 2, "--set", f"run.folder={several}").returncode == 0
    assert [each["windows"] for each in left_out(several)] == [each["windows"] for each in found]
    one, two = (read_checkpoint(folder / "checkpoints" / "step-00000020") for folder in (run, several))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


def test_training_goes_back_and_on_in_another_order_and_a_resumed_one_ends_with_the_same_bits(
    spoilt: Path, cli: Call
) -> None:
    config, run = rescued(spoilt, patience=1, rollbacks=40), spoilt.parent / "run"
    words = ("run", config, *RESCUE, "--set", "trainer.checkpoint_every=2", "--set", "run.seed=1")
    done = cli(*words, "--set", f"run.folder={run.with_name('whole')}")
    assert done.code == 0, done.errors
    returns = done.output.count("; going back, and on in another order")
    assert returns >= 2
    steps = [each["step"] for each in left_out(run.with_name("whole"))]
    assert len(steps) == returns
    lines = [json.loads(line) for line in (run.with_name("whole") / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 21))  # each of them once
    for stop in (9, 16, 20):
        assert cli(*words, "--resume", "--stop-at", stop).code == 0
    assert_same_training(run, run.with_name("whole"), 20)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"patience": 2, "rollbacks": 1},
            "2 steps in a row were left out; training had gone back once before (rescue)",
        ),
        ({"patience": 1, "rollbacks": 0}, "the step was left out; left_out.jsonl"),
    ],
)
def test_a_run_that_cannot_be_rescued_ends_in_words(
    experiment: Path, cli: Call, keys: dict[str, int], words: str
) -> None:
    changed = (
        "optimizer.learning_rate=1e30",
        "trainer.clip=1e38",
        "schedule.div_factor=1",
        "trainer.checkpoint_every=1",
    )
    options = [word for each in changed for word in ("--set", each)]
    refused = cli("run", rescued(experiment, **keys), *options)
    assert refused.code == 2
    assert "error: training diverged by step " in refused.errors
    assert words in refused.errors


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(spoilt: Path, cli: Call) -> None:
    refused = cli("run", rescued(spoilt, patience=1), *RESCUE, "--set", "trainer.checkpoint_every=100")
    assert refused.code == 2
    assert "there is no checkpoint yet to go back to; lower trainer.checkpoint_every" in refused.errors
