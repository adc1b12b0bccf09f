"""Callbacks are called at their points, end training in all processes at once, and go on where they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from conftest import Command
from plugin_support import install
from support import assert_same_training, saved_state
from weights_support import Call, command_line

HEAD = """
import os
import signal
from typing import ClassVar
import torch
from attrs import frozen
from opframe_registry import POINTS, Callback, hookimpl
"""

FOLLOWING = (
    HEAD
    + '''
class Live:
    """Writes every point down, with what can be seen there."""
    def __init__(self, path):
        self.path = path

    def seen(self, point, training, *scores):
        gradients = all(weight.grad is not None for weight in training.backbone.parameters() if weight.requires_grad)
        with open(self.path, "a") as file:
            file.write(f"{training.step}/{training.steps} {point} {sorted(training.losses)} {gradients}\\n")
        if point == "after_step":
            training.log({"odd": 2.0 * training.step})
        for score in scores:
            assert score["selected"] == score["mean/full"]
            assert training.backbone.training and training.seed == 3

for point in POINTS:
    setattr(Live, point, lambda self, *arguments, point=point: self.seen(point, *arguments))

@frozen(kw_only=True)
class Following(Callback):
    """Follows training."""
    name: ClassVar[str] = "following"
    path: str
    def build(self):
        return Live(self.path)

@hookimpl
def opframe_components():
    return [Following]
'''
)

AVERAGE = (
    HEAD
    + '''
class Live:
    """Noise on the gradients, and an average of the weights that is evaluated in their place."""
    def __init__(self):
        self.average, self.kept, self.norms, self.first = {}, {}, [], None

    def after_backward(self, training):
        generator = torch.Generator().manual_seed(training.seed + training.step)
        for weight in training.backbone.parameters():
            weight.grad += 1e-3 * torch.randn(weight.shape, generator=generator)

    def after_step(self, training):
        for name, weight in training.backbone.named_parameters():
            if name not in self.average:
                self.average[name] = weight.detach().clone()
            self.average[name].lerp_(weight.detach(), 0.3)
        self.norms.append((training.step, float(sum(losses for losses in training.losses.values()))))
        self.first = self.first or {"step": training.step, "infinite": float("inf"), "empty": [torch.zeros(0), None]}

    def before_evaluation(self, training):
        self.kept = {name: weight.detach().clone() for name, weight in training.backbone.named_parameters()}
        self.put(training, self.average)

    def after_evaluation(self, training, scores):
        self.put(training, self.kept)

    def put(self, training, weights):
        with torch.no_grad():
            for name, weight in training.backbone.named_parameters():
                weight.copy_(weights[name])

    def state_dict(self):
        return {"average": self.average, "norms": self.norms, "first": self.first}

    def load_state_dict(self, state):
        assert type(state["norms"][0]) is tuple and state["first"]["empty"][0].shape == (0,)
        self.average, self.norms, self.first = dict(state["average"]), list(state["norms"]), state["first"]

@frozen(kw_only=True)
class Average(Callback):
    """Averages weights."""
    name: ClassVar[str] = "average"
    def build(self):
        return Live()

@hookimpl
def opframe_components():
    return [Average]
'''
)

ENDING = (
    HEAD
    + '''
class Live:
    """Asks for the end of training after a step, in one process alone."""
    def __init__(self, settings):
        self.settings = settings

    def after_step(self, training):
        if training.step == self.settings.step and os.environ.get("RANK", "0") == str(self.settings.rank):
            if self.settings.how == "signal":
                os.kill(os.getpid(), signal.SIGINT)
                return
            getattr(training, self.settings.how)(f"rank {self.settings.rank} has seen enough")

@frozen(kw_only=True)
class Ending(Callback):
    """Ends training."""
    name: ClassVar[str] = "ending"
    how: str
    step: int = 3
    rank: int = 0
    def build(self):
        return Live(self)

@hookimpl
def opframe_components():
    return [Ending]
'''
)


@pytest.fixture
def opframe_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line in this process."""
    return command_line(monkeypatch, capsys)


def steps_saved(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))


def entries(run: Path, kind: str) -> list[dict[str, object]]:
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [record for record in records if record["kind"] == kind]


def set_(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def test_points_come_in_their_order(site: Path, experiment: Path, opframe_here: Call) -> None:
    install(site, "following", FOLLOWING)
    path = experiment.parent / "seen"
    callback = f"callbacks=[{{type='following', path='{path}'}}]"
    done = opframe_here(
        "run",
        experiment,
        *set_(callback, "trainer.steps=2", "trainer.evaluate_every=2", "run.seed=3", "data.validation=1"),
    )
    assert done.code == 0, done.errors
    loss = "['relative_l2']"
    assert path.read_text().splitlines() == [
        "0/2 before_training [] False",
        "0/2 before_step [] False",
        f"0/2 after_backward {loss} True",
        f"1/2 after_step {loss} False",
        f"1/2 before_step {loss} False",
        f"1/2 after_backward {loss} True",
        f"2/2 after_step {loss} False",
        f"2/2 before_evaluation {loss} False",
        f"2/2 after_evaluation {loss} False",
        f"2/2 after_training {loss} False",
    ]
    assert [entry["odd"] for entry in entries(experiment.parent / "run", "train") if "odd" in entry] == [2.0, 4.0]


def test_a_resumed_run_with_callbacks_ends_with_the_same_bits(site: Path, experiment: Path, opframe_here: Call) -> None:
    install(site, "average", AVERAGE)
    settings = set_("callbacks=[{type='average'}]", "trainer.evaluate_every=3", "data.validation=1")
    folders = [experiment.parent / name for name in ("run", "straight", "without")]
    assert opframe_here("run", experiment, *settings, "--set", f"run.folder={folders[1]}").code == 0
    assert opframe_here("run", experiment, *settings, "--stop-at", 2).code == 0
    assert opframe_here("run", experiment, *settings, "--stop-at", 5, "--resume").code == 0
    assert opframe_here("run", experiment, *settings, "--resume").code == 0
    assert_same_training(folders[0], folders[1], 8)
    one, two = (saved_state(folder, 8)["callbacks"]["average"] for folder in folders[:2])
    assert one["form"] == two["form"]
    assert one["tensors"].keys() == two["tensors"].keys()
    assert all(torch.equal(one["tensors"][number], two["tensors"][number]) for number in one["tensors"])
    scores = [[entry["mean/full"] for entry in entries(folder, "evaluation")] for folder in folders[:2]]
    assert scores[0] == scores[1]
    assert opframe_here("run", experiment, "--set", f"run.folder={folders[2]}").code == 0
    plain, averaged = (saved_state(folders[2], 8)["model"], saved_state(folders[1], 8)["model"])
    assert any(not torch.equal(plain[name], averaged[name]) for name in plain), "the callback changes nothing"


def test_a_run_goes_on_without_a_callback_or_with_a_new_one_and_says_so(
    site: Path, experiment: Path, opframe_here: Call
) -> None:
    install(site, "average", AVERAGE)
    every = ("trainer.evaluate_every=4", "data.validation=1")
    with_average = set_(*every, "callbacks=[{type='average'}]")
    assert opframe_here("run", experiment, *with_average, "--stop-at", 2).code == 0
    done = opframe_here(
        "run", experiment, *set_(*every, "callbacks=[{type='early_stopping'}]"), "--resume", "--stop-at", 4
    )
    assert done.code == 0, done.errors
    assert "the callback early_stopping has no state in the checkpoint, and begins anew" in done.output
    assert "the state of the callback average is left out, which the experiment does not have" in done.output
    assert opframe_here("run", experiment, *set_(*every), "--resume").code == 0


def test_a_state_that_cannot_be_saved_is_named(site: Path, experiment: Path, opframe_here: Call) -> None:
    install(site, "odd-state", AVERAGE.replace('"norms": self.norms', '"norms": [{1, 2}]'))
    done = opframe_here("run", experiment, *set_("callbacks=[{type='average'}]"), "--stop-at", 1)
    assert done.code == 2
    assert "the state of the callback average.norms[0] is of the type set, which cannot be saved" in done.errors


def test_early_stopping_ends_a_run_that_gets_no_better_as_if_it_were_finished(
    experiment: Path, opframe_here: Call
) -> None:
    """With a learning rate of 0, the second evaluation finds what the first one did."""
    stopping = "callbacks=[{type='early_stopping', patience=2}]"
    settings = set_("optimizer.learning_rate=0.0", "trainer.evaluate_every=1", "data.validation=1", stopping)
    settings += set_("schedule={type='constant'}")
    run = experiment.parent / "run"
    assert opframe_here("run", experiment, *settings, "--stop-at", 2).code == 0
    done = opframe_here("run", experiment, *settings, "--resume")  # one of two evaluations is remembered
    assert done.code == 0, done.errors
    reason = "2 evaluations found nothing better than "
    assert f"stopped at step 3: {reason}" in (run / "report.md").read_text()
    assert [entry["step"] for entry in entries(run, "test")] == [3]
    assert steps_saved(run)[-1] == 3
    (run / "report.md").unlink()
    refused = opframe_here("run", experiment, *settings)
    assert refused.code == 2
    assert f"holds a finished run (3 steps, after which it was stopped: {reason}" in refused.errors
    assert opframe_here("run", experiment, *settings, "--resume").code == 0  # evaluates again, and does not train on
    assert f"stopped at step 3: {reason}" in (run / "report.md").read_text()
    assert steps_saved(run)[-1] == 3


def test_early_stopping_trains_on_while_it_gets_better(experiment: Path, opframe_here: Call) -> None:
    settings = set_(
        "trainer.evaluate_every=1",
        "data.validation=1",
        "callbacks=[{type='early_stopping', patience=1}]",
        "trainer.steps=3",
    )
    done = opframe_here("run", experiment, *settings, *set_("schedule={type='constant'}"))
    run = experiment.parent / "run"
    errors = [entry["mean/full"] for entry in entries(run, "evaluation")]
    assert (done.code, errors) == (0, sorted(errors, reverse=True))
    assert "stopped at" not in (run / "report.md").read_text()
    assert len(errors) == 3


def test_early_stopping_needs_evaluations(experiment: Path, opframe_here: Call) -> None:
    done = opframe_here("check", experiment, *set_("callbacks=[{type='early_stopping'}]"))
    assert done.code == 2
    assert (
        "callbacks[0]: 'early_stopping' goes by evaluations in training, and there are none; set trainer.evaluate_every"
        in done.errors
    )


@pytest.mark.parametrize("limit", ["", "0m", "50", "1h 30m", "30m1h", "-1h", "1.5h"])
def test_what_is_no_duration_is_refused(limit: str, experiment: Path, opframe_here: Call) -> None:
    done = opframe_here("check", experiment, *set_(f"callbacks=[{{type='wall_clock', limit='{limit}'}}]"))
    assert done.code == 2
    assert f"limit = '{limit}' is no duration; write it as 11h50m, 90m or 2d" in done.errors


def test_the_wall_clock_ends_a_run_in_time_saved(experiment: Path, opframe: Command) -> None:
    settings = set_("callbacks=[{type='wall_clock', limit='9s'}]", "trainer.steps=1000000", "trainer.keep=1")
    done = opframe("run", experiment, *settings)
    assert done.returncode == 143, done.stderr
    run = experiment.parent / "run"
    (step,) = steps_saved(run)
    output = done.stdout.replace("\n", "")
    said = f"stopped at step {step}, saved (the 9s of wall_clock are over or nearly so); continue with: opframe run "
    assert said in output
    assert not (run / "report.md").exists()
    assert done.stderr == ""


@pytest.mark.parametrize("how", ["stop", "interrupt"])
def test_two_processes_end_at_one_step_when_one_of_them_is_asked_to(
    how: str, site: Path, experiment: Path, opframe: Command
) -> None:
    """The one that does not lead is asked; the words are its own. State is saved of the one that leads, for both."""
    install(site, "ending", ENDING)
    install(site, "average", AVERAGE)
    settings = set_(f"callbacks=[{{type='average'}}, {{type='ending', how='{how}', rank=1}}]")
    options: dict[str, object] = {"env": {"PYTHONPATH": str(site)}}
    done = opframe("run", experiment, *settings, "--nproc", 2, **options)
    run = experiment.parent / "run"
    assert steps_saved(run) == [3]
    if how == "interrupt":
        assert done.returncode == 143, done.stderr
        assert "stopped at step 3, saved (rank 1 has seen enough); continue with" in done.stdout.replace("\n", "")
        done = opframe("run", experiment, *settings, "--nproc", 2, "--resume", **options)
        assert done.returncode == 0, done.stderr
        norms = json.loads(saved_state(run, 8)["callbacks"]["average"]["form"])["mapping"][1][1]["list"]
        assert [entry["tuple"][0] for entry in norms] == [1, 2, 3, 4, 5, 6, 7, 8]
    else:
        assert done.returncode == 0, done.stderr
        assert "stopped at step 3: rank 1 has seen enough" in (run / "report.md").read_text()


def test_an_evaluation_that_a_signal_cuts_off_is_made_when_the_run_goes_on(
    site: Path, experiment: Path, opframe_here: Call
) -> None:
    install(site, "ending-by-signal", ENDING)
    settings = set_(
        "trainer.evaluate_every=4", "data.validation=1", "callbacks=[{type='ending', how='signal', step=4}]"
    )
    run = experiment.parent / "run"
    assert opframe_here("run", experiment, *settings).code == 130
    assert (steps_saved(run), entries(run, "evaluation")) == ([4], [])
    assert opframe_here("run", experiment, *settings, "--resume").code == 0
    assert [entry["step"] for entry in entries(run, "evaluation")] == [4, 8]
    best = json.loads((run / "checkpoints" / "best.json").read_text())
    assert best["error"] == min(entry["mean/full"] for entry in entries(run, "evaluation"))


def test_what_is_stopped_at_its_last_step_has_only_come_to_its_end(
    site: Path, experiment: Path, opframe_here: Call
) -> None:
    install(site, "ending-late", ENDING)
    done = opframe_here("run", experiment, *set_("callbacks=[{type='ending', how='stop', step=8}]"))
    assert done.code == 0, done.errors
    assert "stopped at" not in (experiment.parent / "run" / "report.md").read_text()
