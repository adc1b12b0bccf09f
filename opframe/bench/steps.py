"""The steps of a run, timed and counted with the data, the network and the folder of an experiment."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

import torch
from attrs import evolve, frozen

from opframe.bench.loading import measure
from opframe.bench.timing import Call, Spread, in_turns, spread
from opframe.bench.work import Work, count_work
from opframe.config import building
from opframe.config.settings import Experiment
from opframe.console import Bar
from opframe.evaluation.protocol import Evaluator
from opframe.mixture.loading import batches, make_loader, to_device
from opframe.mixture.rollout import Forecast, model_forecast
from opframe.processes import Processes
from opframe.run import assembly
from opframe.run.checkpoint import Checkpoints
from opframe.run.parameters import training_mode
from opframe.run.step import Step
from opframe.run.trainer import Trainer
from opframe_registry import Batch, Dataset

STEP, LOOP = "training step", "training with the loader"
"""Names of the rows that are compared with each other."""

_ENDLESS = 10**9
"""Steps of a training that does not end while it is timed."""

_STEPS = 8
"""Steps of the whole loop that are timed together, so that a wait for data is seen whichever step it falls on."""

_WINDOWS, _ROUNDS = 32, 3
_ROLLED = 10
"""Steps of a roll-out: what is derived from the weights is made in the first."""

_SOLVED = 16
"""Trajectories that are solved to see how long one takes."""


@frozen(kw_only=True)
class Row:
    """One step of a run: its seconds, how much it makes, and its work.

    `amount` of `unit` is made in a step. `moved` are the bytes that it reads and writes, where they are known.
    """

    name: str
    seconds: Spread
    amount: float
    unit: str
    work: Work | None = None
    moved: int | None = None

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.amount / self.seconds.median


def endless(experiment: Experiment) -> Experiment:
    """The experiment with a training that does not end."""
    return evolve(experiment, trainer=evolve(experiment.trainer, steps=_ENDLESS))


def measure_rows(experiment: Experiment, processes: Processes, seconds: float) -> Iterator[Row]:
    """Measure one step of a run after another, each for some seconds; the data are prepared already.

    Nothing stays on the disk: checkpoints are written beside the run folder, and removed. Raises OpframeError.
    """
    experiment = endless(experiment)
    sources = assembly.open_sources(experiment)
    with _folder_beside(Path(experiment.run.folder)) as folder:
        trainer = _trainer(experiment, sources, processes, Path(folder))
        yield from _of_training(trainer, _batches(experiment, sources, processes.device), seconds)
        yield _checkpoint(trainer, Path(folder), seconds)
    yield from _of_reading(experiment)
    for component in (*experiment.datasets, *experiment.zero_shot):
        if type(component).prepare is not Dataset.prepare:
            yield from _of_solving(component, seconds)


def _folder_beside(path: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder on the disk where the run folder is, or would be."""
    beside = next(parent for parent in path.absolute().parents if parent.is_dir())
    return tempfile.TemporaryDirectory(dir=beside, prefix="opframe-bench-")


def _trainer(experiment: Experiment, sources: assembly.Sources, processes: Processes, folder: Path) -> Trainer:
    backbone = assembly.build_backbone(experiment, sources.fields).to(processes.device)
    training_mode(backbone)
    optimizer = assembly.build_optimizer(experiment, backbone)
    settings = experiment.trainer
    step = Step(
        settings=settings,
        backbone=backbone,
        loss=assembly.build_loss(experiment, sources.fields),
        optimizer=optimizer,
        schedule=assembly.build_schedule(experiment, optimizer),
        processes=processes,
    )
    return Trainer(
        now=step,
        checkpoints=Checkpoints(folder, settings.keep, processes),
        evaluator=Evaluator(
            sources=sources.test,
            zero_shot=(),
            fields=sources.fields,
            processes=processes,
            batch_size=experiment.evaluation.batch_size,
            bfloat16=settings.precision == "bfloat16",
        ),
    )


def _batches(experiment: Experiment, sources: assembly.Sources, device: torch.device) -> Generator[Batch]:
    """What training would see, on its device."""
    order = assembly.build_order(experiment, sources.train)
    plan = assembly.training_plan(experiment, order, 0, 1, range(_ENDLESS))
    windows = assembly.training_windows(experiment, sources)
    loader = make_loader(windows, plan, experiment.data.workers, pin=device.type == "cuda")
    with closing(batches(loader)) as loaded:
        for batch in loaded:
            yield to_device(batch, device)


def _of_training(trainer: Trainer, loaded: Generator[Batch], seconds: float) -> Iterator[Row]:
    """A training step on one batch, steps with the loader, and what evaluation does with the network."""
    with closing(loaded):
        batch = next(loaded)
        step = _row(STEP, trainer, lambda: trainer.train_step(batch), batch, seconds)
        yield step
        yield _whole_loop(trainer, loaded, step, seconds)
    trainer.backbone.eval()
    rolling = model_forecast(trainer.backbone, trainer.evaluator.fields.horizon)
    for name, steps in (("forward pass", 1), (f"roll-out of {_ROLLED} steps", _ROLLED)):
        yield _row(name, trainer, _evaluation(trainer, rolling, batch, steps), batch, seconds, steps)


def _evaluation(trainer: Trainer, forecast: Forecast, batch: Batch, steps: int) -> Call:
    frames = steps * trainer.evaluator.fields.horizon
    return lambda: trainer.evaluator.run(forecast, batch.inputs, frames, batch.conditions)


def _row(name: str, trainer: Trainer, call: Call, batch: Batch, seconds: float, steps: int = 1) -> Row:
    """Time a call, and count its work, which a compiled one does not show."""
    device = trainer.processes.device
    (times,) = in_turns([call], seconds, device)
    work = None if trainer.settings.compile else count_work(call, device)
    return Row(
        name=name,
        seconds=spread(times),
        amount=steps * len(batch.inputs),
        unit="samples",
        work=work,
        moved=work.moved if work else None,
    )


def _whole_loop(trainer: Trainer, loaded: Iterator[Batch], alone: Row, seconds: float) -> Row:
    """Training steps that wait for their data; what `alone` takes is what they would take otherwise."""
    together = min(max(math.ceil(seconds / alone.seconds.median / _ROUNDS), 1), _STEPS)

    def steps() -> None:
        for _ in range(together):
            trainer.train_step(next(loaded))

    (times,) = in_turns([steps], seconds, trainer.processes.device)
    each = spread([time / together for time in times])
    return Row(name=LOOP, seconds=each, amount=alone.amount, unit="samples")


def _checkpoint(trainer: Trainer, folder: Path, seconds: float) -> Row:
    """How long training stands still for a checkpoint."""
    (times,) = in_turns([lambda: trainer.save(None)], seconds, torch.device("cpu"))
    latest = trainer.checkpoints.latest() or folder
    size = sum(path.stat().st_size for path in latest.rglob("*"))
    return Row(name="checkpoint", seconds=spread(times), amount=1, unit="checkpoints", moved=2 * size)


def _of_reading(experiment: Experiment) -> Iterator[Row]:
    """The loader alone: of every training dataset, and of the mixture."""
    samples = max(_WINDOWS, experiment.data.batch_size)
    for rate in measure(experiment, samples, _ROUNDS, Bar.hidden()):
        yield Row(
            name=f"loader, {rate.title}",
            seconds=spread([1 / rate.samples_per_second]),
            amount=1,
            unit="samples",
            moved=round(2e6 * rate.megabytes_per_second / rate.samples_per_second),
        )


def _of_solving(component: Dataset, seconds: float) -> Iterator[Row]:
    """A few trajectories solved from scratch; nothing where the component prepares otherwise than by solving."""
    for count in (1, _SOLVED):
        with tempfile.TemporaryDirectory() as cache:
            began = time.perf_counter()
            building.prepare(evolve(component, train=count, test=1), Path(cache), lambda what, done, total: None)
            taken = time.perf_counter() - began
            if not any(Path(cache).iterdir()):
                return
        if taken > seconds:
            break
    yield Row(name=f"solver, {component.title}", seconds=spread([taken]), amount=count + 1, unit="trajectories")
