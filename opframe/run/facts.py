"""What a run says of itself, in words: when it begins, and above the table of its report."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from opframe.config.settings import Experiment
from opframe.console import counted
from opframe.processes import Processes
from opframe.weights.checkpoints import read_best
from opframe.weights.transfer import begun_with


def plan_in_words(experiment: Experiment, backbone: nn.Module) -> list[str]:
    """What is trained, and for how long."""
    return [
        size_in_words(experiment, backbone),
        f"{counted(experiment.trainer.steps, 'step')} of {counted(experiment.data.batch_size, 'sample')}, "
        f"seed {experiment.run.seed}",
    ]


def unselected(experiment: Experiment, validated: bool) -> list[str]:
    """What is to be said, once, where training is to be evaluated and there is nothing to go by."""
    trainer = experiment.trainer
    if validated or trainer.evaluate_every is None or trainer.evaluate_every > trainer.steps:
        return []
    return [
        "there are no validation data: nothing is evaluated while training (trainer.evaluate_every), and no checkpoint "
        "is selected; data.validation = 0.1 would hold out a tenth of the training trajectories"
    ]


def end_in_words(checkpoints: Path, step: int, stopped: str | None) -> list[str]:
    """How training ended, and what of it is evaluated."""
    why = [] if stopped is None else [f"stopped at step {step}: {stopped}"]
    return [*why, _selection_in_words(checkpoints, step)]


def _selection_in_words(checkpoints: Path, step: int) -> str:
    """Which weights are evaluated, those of the last step, and which checkpoint the validation data would choose."""
    best = read_best(checkpoints)
    if best is None or best.split != "validation":
        return "evaluated as the last step left it; nothing was selected"
    return (
        f"evaluated as the last step, {step}, left it; the least error on validation trajectories while training, "
        f"{best.error:.4f}, was that of step {best.step}"
    )


def size_in_words(experiment: Experiment, backbone: nn.Module) -> str:
    """The backbone, and how large it is."""
    weights = sum(weight.numel() for weight in backbone.parameters())
    return f"backbone {experiment.backbone.name}, {weights:,} parameters"


def facts_of(experiment: Experiment, processes: Processes, done: list[str], when: str) -> list[str]:
    """What the report says above its table: what was done, on what, and where to find more."""
    compared = [] if experiment.evaluation.overlap else ["training and test data not compared (evaluation.overlap)"]
    events = ", events/" if (Path(experiment.run.folder) / "events").exists() else ""
    begun: list[str] = []
    if experiment.init:
        begun = [f"weights from {experiment.init.from_}{begun_with(Path(experiment.run.folder))} (init.json)"]
    return [
        *done,
        *begun,
        *compared,
        f"{_grids(experiment)}, {counted(experiment.data.history, 'frame')} of history",
        f"{counted(processes.count, 'process')} on {processes.device.type}, {when}",
        "settings: config.toml; versions and hardware: environment.json; numbers: metrics.jsonl, report.json" + events,
    ]


def _grids(experiment: Experiment) -> str:
    grid = "x".join(map(str, experiment.data.grid))
    native = experiment.data.resize == "native"
    return f"every dataset on its own grid, a network made for {grid}" if native else f"grid {grid}"
