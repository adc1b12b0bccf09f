"""The training loop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from attrs import Factory, define, field
from torch import Tensor, nn

from opframe.config.settings import Trainer as Settings
from opframe.console import Bar
from opframe.evaluation.pictures import rollout_pictures
from opframe.evaluation.protocol import Evaluator
from opframe.mixture.loading import to_device
from opframe.processes import ElsewhereError, Processes
from opframe.run.callbacks import Callbacks
from opframe.run.checkpoint import Checkpoints, collect_callbacks, collect_state
from opframe.run.ending import Answer, Ending, Outcome
from opframe.run.entries import Entries
from opframe.run.loggers import Loggers
from opframe.run.parameters import training_mode
from opframe.run.setbacks import Setbacks
from opframe.run.sharing import same_buffers, whole_weights
from opframe.run.step import Step
from opframe.run.upcoming import Upcoming
from opframe.signals import Interrupted, deferred
from opframe.weights.checkpoints import CheckpointRecord
from opframe_registry import Batch, DataError, OpframeError, PluginError, RunError


@define(kw_only=True)
class Trainer:
    """Trains one backbone from `step` to the last one by what is to be done in each, `now`; all is given already built.

    It is what callbacks see as `Training`. `stopped` says why training was ended for good before it resumes,
    `pending` that the evaluation which is due at the step it resumes from is still to be made, and `rollbacks` how
    often it has gone back to a checkpoint.
    """

    now: Step
    checkpoints: Checkpoints
    evaluator: Evaluator
    seed: int = 0
    step: int = 0
    stop_at: int = field(default=Factory(lambda self: self.settings.steps, takes_self=True))
    stopped: str | None = None
    pending: bool = False
    rollbacks: int = 0
    setbacks: Setbacks | None = None
    loggers: Loggers = field(factory=Loggers)
    callbacks: Callbacks = field(factory=Callbacks)
    bar: Bar = field(factory=Bar.hidden)
    suspect: Callable[[range], str | None] = lambda steps: None
    """What in the data of some steps may explain a loss that is not finite, in words."""
    _checked: int = field(default=0, init=False)
    _end: Ending = field(init=False)
    _entries: Entries = field(init=False)
    _saved: int = field(default=-1, init=False)
    _skip: str | None = field(default=None, init=False)
    _said: list[str] = field(factory=list, init=False)

    @_end.default
    def _ending(self) -> Ending:
        return Ending(processes=self.processes, stopped=self.stopped)

    @_entries.default
    def _all_entries(self) -> Entries:
        return Entries(of=self.now, loggers=self.loggers)

    @property
    def losses(self) -> Mapping[str, Tensor]:
        """Those of the last step, on the device, of this process's share of the batch."""
        return self.now.losses

    @property
    def settings(self) -> Settings:
        """The trainer's, of the experiment."""
        return self.now.settings

    @property
    def backbone(self) -> nn.Module:
        """The network."""
        return self.now.backbone

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What changes its weights."""
        return self.now.optimizer

    @property
    def processes(self) -> Processes:
        """Those that train together."""
        return self.now.processes

    @property
    def steps(self) -> int:
        """Optimizer steps that are to be done."""
        return self.settings.steps

    def log(self, values: Mapping[str, float]) -> None:
        """Hand numbers of this step to the loggers."""
        self.loggers.log(self.step, "train", {name: float(value) for name, value in values.items()})

    def stop(self, reason: str) -> None:
        """End training after this step as if it were the last one."""
        self._end.stop = reason

    def interrupt(self, reason: str) -> None:
        """Save after this step and end, as after a signal."""
        self._end.interrupt = reason

    def skip(self, reason: str) -> None:
        """Leave this step out, so that it changes no weight."""
        self._skip = reason

    def roll_back(self, reason: str) -> None:
        """End training after this step without saving, to go on from the latest checkpoint."""
        self._end.back = reason

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the global batch of what each process has of its share."""
        return self.processes.sum(value * self.now.weight) / self.processes.count

    def say(self, words: str) -> None:
        """Say a line to the person."""
        self._said.append(words)
        if self.setbacks is not None and self.processes.leads:
            self.setbacks.say(words)

    def go_back(self, step: int, callbacks: Callbacks) -> None:
        """Be ready to train on from a checkpoint that has been loaded into what this trains."""
        self.step, self.callbacks = step, callbacks
        self.rollbacks += 1
        self._end = Ending(processes=self.processes)
        self.now.begin_anew()

    def train(self, batches: Iterator[Batch]) -> Outcome:
        """Train until the last step, a signal, a callback's word, or `stop_at`; the last state is always saved.

        A signal is obeyed after the current step. One process alone need not wait for a batch or an evaluation.
        """
        self._entries.begin()
        self._checked = self.step
        self._saved = self.step  # what a run resumes from is there already, and is not to be written over
        training_mode(self.backbone)
        upcoming = Upcoming(batches=batches, ahead=self.processes.count > 1)
        with deferred(self._end.hear), self._located():
            try:
                self._begin()
                while not self._end.over and self.step < self.stop_at and (batch := self._next(upcoming)) is not None:
                    self._carry_out(batch)
                    del batch  # its memory is for the next one
            except Interrupted:
                self._end.signal = self._end.signal or signal.SIGTERM  # which another process was sent
                self._agree(self._end.ask())
            with self._saved_first():
                self._end.raise_error()
            if self._end.rolled_back:
                self.checkpoints.settle()
                why = self.processes.first_words(self._end.back or "")
                return Outcome(step=self.step, interrupted=False, rolled_back=why)
            if self._saved != self.step:
                self.save(None)
            self.checkpoints.settle()
            self._said.clear()
            for call in self.callbacks.after_training:
                call(self)
        end = self._end
        return Outcome(
            step=self.step,
            interrupted=end.signal is not None or (self.step < self.steps and end.stopped is None),
            signal=end.signal,
            interruption=end.interruption,
            stopped=end.stopped,
            said=tuple(self._said),
        )

    def _begin(self) -> None:
        """What comes before the first step."""
        for call in self.callbacks.before_training:
            call(self)
        if self.callbacks:
            self._agree(self._end.ask())
        if self.pending and not self._end.over:
            error = self.evaluate()
            self._agree(self._end.ask())
            self.save(error)

    @contextmanager
    def _located(self) -> Iterator[None]:
        """What ends training from outside says in which step."""
        try:
            yield
        except (RuntimeError, TimeoutError) as error:
            error.add_note(f"in step {self.step + 1}")
            raise

    def _next(self, upcoming: Upcoming) -> Batch | None:
        with self._saved_first(), self._end.interruptible(), self.now.watch.waiting():
            batch = upcoming.take()
            self._end.error = upcoming.error
            return batch

    def _carry_out(self, batch: Batch) -> None:
        """A step, and what is due after it.

        Where no callback can ask for anything in this step, the processes agree on its end while it is computed.
        """
        ahead = None if self.callbacks else self._end.ask()
        for call in self.callbacks.before_step:
            call(self)
        self.train_step(to_device(batch, self.processes.device))
        for call in self.callbacks.after_step:
            call(self)
        self._log(len(batch.inputs))
        with nullcontext() if self.callbacks.before_evaluation else self._saved_first():
            error = self.evaluate() if self._due(self.settings.evaluate_every) else None
        self._agree(ahead or self._end.ask())
        if not self._end.rolled_back and (error is not None or self._due(self.settings.checkpoint_every)):
            self.save(error)  # last: what a run resumes from has its numbers with the loggers, kill or no kill

    @contextmanager
    def _saved_first(self) -> Iterator[None]:
        """What is trained is saved before an error in the data ends it, in one process or in all that agree on it."""
        try:
            yield
        except (DataError, PluginError, ElsewhereError) as error:
            agreed = self.processes.count == 1 or self._end.failed
            if self._saved == self.step or not agreed:
                raise
            self.save(None)
            self.checkpoints.settle()
            raise type(error)(f"{error}\nthe run is saved at step {self.step}, from where --resume goes on") from error

    def _agree(self, answer: Answer) -> None:
        self._end.agree(answer, last=self.step >= self.steps)

    def train_step(self, batch: Batch) -> None:
        """One optimizer step on this process's share of a global batch."""
        self.now.compute(batch)
        self._skip = None
        for call in self.callbacks.after_backward:
            call(self)
        left_out = bool(self.callbacks.after_backward) and self.processes.any(self._skip is not None)
        self.now.apply(leave_out=left_out)
        if left_out:
            self._write_down(self.processes.first_words(self._skip or ""))
        self.step += 1

    def _write_down(self, reason: str) -> None:
        if self.setbacks is not None and self.processes.leads:
            self.setbacks.left_out(self.step, reason)

    def evaluate(self) -> float:
        """Evaluate on validation trajectories; returns what is selected by. Raises Interrupted after a signal.

        Where callbacks change something before, it is not cut short, so that they can change it back.
        """
        self._end.end_if_interrupted()
        for call in self.callbacks.before_evaluation:
            call(self)
        same_buffers(self.backbone, self.processes)
        uncut = bool(self.callbacks.before_evaluation)
        with whole_weights(self.backbone), nullcontext() if uncut else self._end.interruptible():
            try:
                report = self.evaluator.evaluate(self.backbone, lambda: None if uncut else self._end.signal)
            except OpframeError:
                self._end.failed = True  # all processes come here together
                raise
            pictures = rollout_pictures(self.evaluator, self.backbone) if self.loggers.images else {}
        training_mode(self.backbone)
        self._entries.begin()
        scores = report.numbers()
        self.loggers.log(self.step, "evaluation", scores)
        for name, picture in pictures.items():
            self.loggers.image(self.step, f"evaluation/{name}", picture)
        for call in self.callbacks.after_evaluation:
            call(self, {**scores, "selected": report.selected()})
        return report.selected()

    def save(self, error: float | None) -> None:
        """Write a checkpoint of the whole state, unless the weights are beyond saving."""
        begun = time.monotonic()
        self._check_finite()
        same_buffers(self.backbone, self.processes)  # which a checkpoint has once
        state = collect_state(self.backbone, self.optimizer, self.now.schedule, self.step, self.processes.rank)
        callbacks = self.callbacks.state()
        record = CheckpointRecord(
            step=self.step,
            processes=self.processes.count,
            error=error,
            split="validation",
            stopped=self._end.stopped,
            rollbacks=self.rollbacks,
            callbacks=tuple(callbacks),
        )
        everything = state | collect_callbacks(callbacks, self.processes.leads)
        self.checkpoints.save(everything, record, background=self.settings.save == "background")
        self._saved = self.step
        self.now.watch.stall = time.monotonic() - begun

    def _due(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0

    def _log(self, samples: int) -> None:
        """Every few steps: numbers to loggers and bar."""
        self._entries.count(samples)
        if not self._due(self.settings.log_every):
            return
        self._check_finite()
        self.now.watch.saving, self.checkpoints.seconds = self.checkpoints.seconds, None
        if remark := self._entries.enter(self.step, self.bar):
            self.say(remark)

    def _check_finite(self) -> None:
        """Raises RunError, in the leading process, where a loss or a gradient of any process is not finite."""
        now = self.now
        if not now.broken():
            self._checked = self.step
            return
        suspects = self.processes.first_words(self.suspect(range(self._checked, self.step)) or "")
        if not self.processes.leads:
            raise ElsewhereError("training diverged")
        values = ", ".join(f"{name} = {float(value)}" for name, value in now.losses.items())
        said = f"training diverged by step {self.step}: {values}, gradient norm {float(now.norm)}"
        why = suspects or "lower optimizer.learning_rate or trainer.clip"
        raise RunError(f"{said}; {why} (last good checkpoint: {self.checkpoints.latest() or 'none'})")
