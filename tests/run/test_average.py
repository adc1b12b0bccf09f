"""The callback `ema`: the average is right, is what is evaluated and exported, and survives resumes and sharding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import opframe as library
from conftest import Command
from opframe.run.assembly import build_backbone, open_sources
from opframe.weights.runs import read_checkpoint
from support import saved_state
from weights_support import Call

STEPS = 8
SAID = "evaluated is the average of the weights over steps (ema, decay 0.5)"
LAST = f"step-{STEPS:08d}"


@pytest.fixture
def averaged(experiment: Path) -> Path:
    """The experiment with the callback, every step saved, and evaluations in training."""
    changes = {
        "checkpoint_every = 4": "checkpoint_every = 1\nkeep = 100\nevaluate_every = 4",
        "noise = 1e-4": "noise = 0.0",
        "history = 4": "history = 4\nvalidation = 2",
    }
    text = experiment.read_text()
    for old, new in changes.items():
        text = text.replace(old, new)
    path = experiment.with_name("averaged.toml")
    path.write_text(f'{text}[[callbacks]]\ntype = "ema"\ndecay = 0.5\n')
    return path


def test_the_average_is_that_of_the_weights_of_all_steps_and_is_what_is_reported_and_exported(
    averaged: Path, cli: Call
) -> None:
    run = averaged.parent / "run"
    done = cli("run", averaged)
    assert done.code == 0, done.errors
    assert SAID in (run / "report.md").read_text()
    experiment = library.load_experiment(averaged)
    start = build_backbone(experiment, open_sources(experiment).fields).state_dict()
    raw = [saved_state(run, step)["model"] for step in range(1, STEPS + 1)]
    found = read_checkpoint(run / "checkpoints" / LAST)
    for name, average in found.items():
        expected = start[name].double()
        for step, weights in enumerate(raw, 1):
            decay = min(0.5, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * weights[name].double()
        assert torch.allclose(average.double(), expected, atol=1e-6), name
    assert any(not torch.equal(found[name], raw[-1][name]) for name in found)
    again = library.evaluate(run, quiet=True)
    told = library.train(experiment, resume=True, quiet=True).report
    assert told is not None
    assert again.numbers() == told.numbers()


def test_a_run_that_is_resumed_averages_on_and_training_itself_is_not_touched(averaged: Path, cli: Call) -> None:
    run = averaged.parent / "run"
    whole, without = run.with_name("whole"), run.with_name("without")
    assert cli("run", averaged, "--set", f"run.folder={whole}").code == 0
    for stop in (3, 5, STEPS):
        assert cli("run", averaged, "--resume", "--stop-at", stop).code == 0
    one, two = (read_checkpoint(folder / "checkpoints" / LAST) for folder in (whole, run))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert cli("run", averaged, "--set", f"run.folder={without}", "--set", "callbacks=[]").code == 0
    raw, plain = (saved_state(folder, STEPS)["model"] for folder in (whole, without))
    assert all(torch.equal(raw[name], plain[name]) for name in raw)


@pytest.mark.fault
def test_processes_that_share_a_network_average_it_as_one_does(averaged: Path, cli: Call, opframe: Command) -> None:
    run = averaged.parent / "run"
    assert cli("run", averaged, "--set", f"run.folder={run.with_name('one')}").code == 0
    shared = ("run", averaged, "--nproc", 2, "--set", 'parallel.strategy="fsdp"')
    done = opframe(*shared, "--stop-at", 4)
    assert done.returncode == 0, done.stderr
    done = opframe(*shared, "--resume")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(SAID) == 1
    one, two = (read_checkpoint(folder / "checkpoints" / LAST) for folder in (run.with_name("one"), run))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
