"""Training from a checkpoint, or from nothing, to its end, and back to a checkpoint where a callback asks for it."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from attrs import evolve, frozen
from rich.console import Console
from torch import nn

from opframe.config.settings import Experiment
from opframe.config.settings import Trainer as Settings
from opframe.console import Bar, counted, say
from opframe.evaluation.protocol import Evaluator
from opframe.mixture.extremes import extreme_window
from opframe.mixture.loading import Plan, batches, make_loader
from opframe.processes import Processes
from opframe.run import assembly
from opframe.run.callbacks import Callbacks, build_callbacks, callbacks_of, check_evaluations
from opframe.run.checkpoint import Checkpoints, check_checkpoint, read_callbacks, restore_state
from opframe.run.copy import Copy
from opframe.run.ending import Outcome
from opframe.run.folder import RunFolder
from opframe.run.loggers import Loggers
from opframe.run.place import Place
from opframe.run.setbacks import NAME, Setbacks, order_seed, windows_of
from opframe.run.sharing import share
from opframe.run.step import Step
from opframe.run.trainer import Trainer
from opframe.run.watching import Watch
from opframe.weights.checkpoints import CheckpointRecord, read_record
from opframe_registry import Catalog, RunError


@frozen(kw_only=True)
class Course:
    """What one run trains, on what, and where it is kept. `validation` is what it goes by, if there is anything."""

    experiment: Experiment
    catalog: Catalog
    folder: RunFolder
    sources: assembly.Sources
    backbone: nn.Module
    evaluator: Evaluator
    validation: Evaluator | None
    loggers: Loggers
    console: Console
    stop_at: int | None

    @property
    def processes(self) -> Processes:
        """Those that train together."""
        return self.evaluator.processes

    @property
    def settings(self) -> Settings:
        """The trainer's, without evaluations where there is nothing to go by."""
        return self.experiment.trainer if self.validation else evolve(self.experiment.trainer, evaluate_every=None)

    def train(self) -> Outcome:
        """Train to the end. Raises OpframeError."""
        with closing(self._checkpoints()) as checkpoints:
            outcome = self._train(checkpoints)
        self.processes.wait_for_leader()  # which may be copying still
        return outcome

    def _train(self, checkpoints: Checkpoints) -> Outcome:
        experiment, processes, settings = self.experiment, self.processes, self.settings
        limited = (self.validation or self.evaluator).limited(experiment.evaluation.trajectories)
        known = sum(source.metadata.trajectories for source in limited.sources) if self.validation else 0
        check_evaluations(experiment.callbacks, known)
        share(self.backbone, experiment.parallel, processes, partial(self.evaluator.try_once, self.backbone))
        optimizer = assembly.build_optimizer(experiment, self.backbone)
        schedule = assembly.build_schedule(experiment, optimizer)
        resumes = checkpoints.latest() is not None
        torch.manual_seed(experiment.run.seed + processes.rank)
        callbacks, record = self._restored(checkpoints, optimizer, schedule)
        step = Step(
            settings=settings,
            backbone=self.backbone,
            loss=assembly.build_loss(experiment, self.sources.fields),
            optimizer=optimizer,
            schedule=schedule,
            processes=processes,
            watch=self._watch(),
            batch_size=experiment.data.batch_size,
        )
        trainer = Trainer(
            now=step,
            checkpoints=checkpoints,
            evaluator=limited,
            seed=experiment.run.seed,
            step=record.step,
            stop_at=self._end(record),
            stopped=record.stopped,
            pending=resumes and _pending(record, settings),
            rollbacks=record.rollbacks,
            loggers=self.loggers,
            callbacks=callbacks,
        )
        with Bar(self.console, "training", settings.steps, record.step, shown=processes.leads) as trainer.bar:
            while (outcome := self._stretch(trainer)).rolled_back is not None:
                self._say_of_return(trainer, outcome)
                callbacks, record = self._restored(checkpoints, optimizer, schedule)
                self.loggers.go_back(record.step)
                trainer.go_back(record.step, callbacks)
        return outcome

    def _end(self, record: CheckpointRecord) -> int:
        """The step at which this process ends, which may not be the last one."""
        if record.stopped is not None:
            return record.step
        steps = self.settings.steps
        return max(min(self.stop_at or steps, steps), record.step)

    def _checkpoints(self) -> Checkpoints:
        settings, place = self.settings, self.experiment.run.copy
        copy = None
        if place is not None and self.processes.leads:
            copy = Copy(
                place=Place(place),
                folder=self.folder.path,
                keep=settings.keep,
                keep_every=settings.keep_every,
                say=partial(say, self.console),
            )
        name = self.folder.name()
        return Checkpoints(self.folder.checkpoints, settings.keep, self.processes, name, settings.keep_every, copy)

    def _restored(
        self,
        checkpoints: Checkpoints,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> tuple[Callbacks, CheckpointRecord]:
        """Fresh callbacks, and all the rest as the latest checkpoint has it, or as it is at first."""
        callbacks = build_callbacks(callbacks_of(self.experiment, self.catalog))
        latest, processes = checkpoints.latest(), self.processes
        if latest is None:
            return callbacks, CheckpointRecord(step=0, processes=processes.count)
        check_checkpoint(latest, self.folder.name(), processes)
        record = read_record(latest)
        restore_state(latest, self.backbone, optimizer, schedule, processes)
        lines = _continuing(latest, record, processes) + callbacks.load(read_callbacks(latest, processes))
        for line in lines if processes.leads else ():
            say(self.console, line)
        return callbacks, record

    def _stretch(self, trainer: Trainer) -> Outcome:
        """Train until the end, or until a callback wants to go back."""
        experiment, processes = self.experiment, self.processes
        windows = assembly.training_windows(experiment, self.sources)
        plan = self._plan(trainer)
        trainer.suspect = partial(extreme_window, windows, plan)
        trainer.setbacks = Setbacks(
            path=Path(experiment.run.folder) / NAME,
            say=partial(say, self.console),
            read=partial(windows_of, windows, plan),
        )
        loader = make_loader(windows, plan, experiment.data.workers, pin=processes.device.type == "cuda")
        with closing(batches(loader)) as stream:
            return trainer.train(stream)

    def _plan(self, trainer: Trainer) -> Plan:
        """The order of the data, which is another one after each return to a checkpoint."""
        order = assembly.build_order(self.experiment, self.sources.train)
        steps = range(trainer.step, trainer.stop_at)
        plan = assembly.training_plan(self.experiment, order, self.processes.rank, self.processes.count, steps)
        return evolve(plan, seed=order_seed(plan.seed, trainer.rollbacks))

    def _watch(self) -> Watch:
        order = assembly.build_order(self.experiment, self.sources.train)
        return Watch(titles=self.sources.fields.datasets, shares=getattr(order, "shares", None))

    def _say_of_return(self, trainer: Trainer, outcome: Outcome) -> None:
        if trainer.checkpoints.latest() is None:
            raise RunError(
                f"step {outcome.step}: {outcome.rolled_back}, and there is no checkpoint yet to go back to; lower "
                "trainer.checkpoint_every"
            )
        if self.processes.leads:
            say(self.console, f"step {outcome.step}: {outcome.rolled_back}; going back, and on in another order")


def _continuing(latest: Path, record: CheckpointRecord, processes: Processes) -> list[str]:
    """What goes on, in words."""
    words = [f"continuing from {latest}"]
    if record.processes != processes.count:
        words.append(
            f"it was written by {counted(record.processes, 'process')} and continues on {processes.count}: the data "
            "and the noise are the same, sums are rounded differently, and the state of dropout is not restored"
        )
    return words


def _pending(record: CheckpointRecord, settings: Settings) -> bool:
    """Whether a run was interrupted before the evaluation that was due at the step of its checkpoint."""
    every = settings.evaluate_every
    return every is not None and record.step % every == 0 and record.error is None and record.stopped is None
