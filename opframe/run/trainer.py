"""The training loop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from attrs import define, field, frozen
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from opframe.config.settings import Trainer as Settings
from opframe.console import Bar
from opframe.evaluation.protocol import Evaluator
from opframe.mixture.loading import split_batch, to_device
from opframe.processes import Processes
from opframe.run.checkpoint import Checkpoints, collect_state
from opframe.run.journal import Journal
from opframe.run.parameters import training_mode
from opframe.signals import Interrupted, deferred
from opframe.weights.checkpoints import CheckpointRecord
from opframe_registry import Batch, LossFunction, RunError


class Task(nn.Module):
    """Backbone and objective as one module, so that DDP and torch.compile see the whole forward pass."""

    def __init__(self, backbone: nn.Module, loss: LossFunction) -> None:
        super().__init__()
        self.backbone = backbone
        self._loss = loss

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Named losses of a batch."""
        return dict(self._loss(self.backbone, batch))


def wrap(backbone: nn.Module, loss: LossFunction, settings: Settings, processes: Processes) -> nn.Module:
    """The task, compiled and distributed as the settings say."""
    task: nn.Module = Task(backbone, loss)
    if settings.compile:
        task.compile()
    if processes.count > 1:
        task = DistributedDataParallel(task)
    return task


@frozen(kw_only=True)
class Outcome:
    """How training ended, and which signal ended it."""

    step: int
    interrupted: bool
    signal: int | None = None


@define(kw_only=True)
class Trainer:
    """Trains one backbone from `step` to the last one; everything it needs is given, already built."""

    settings: Settings
    processes: Processes
    backbone: nn.Module
    task: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    checkpoints: Checkpoints
    journal: Journal | None
    evaluator: Evaluator
    bar: Bar
    stop_at: int
    step: int = 0
    suspect: Callable[[range], str | None] = lambda steps: None
    """What in the data of some steps may explain a loss that is not finite, in words."""
    _checked: int = field(default=0, init=False)
    _signal: int | None = field(default=None, init=False)
    _idle: bool = field(default=False, init=False)
    _losses: dict[str, Tensor] = field(factory=dict, init=False)
    _rate: float = field(default=0.0, init=False)
    _norm: Tensor = field(factory=lambda: torch.zeros(()), init=False)
    _clock: tuple[float, int] = field(factory=lambda: (time.monotonic(), 0), init=False)
    _saved: int = field(default=-1, init=False)

    def train(self, batches: Iterator[Batch]) -> Outcome:
        """Train until the last step, a signal, or `stop_at`; the last state is always saved.

        A signal is obeyed after the current step. One process alone need not wait for a batch or an evaluation.
        """
        self._clock = (time.monotonic(), 0)
        self._checked = self.step
        self._saved = self.step  # what a run resumes from is there already, and is not to be written over
        training_mode(self.backbone)
        with deferred(self._ask):
            try:
                while self.step < self.stop_at and (batch := self._next(batches)) is not None:
                    stop = self.processes.ask_any(self._signal is not None)
                    self._carry_out(batch)
                    del batch  # its memory is for the next one
                    if stop() or (self._signal is not None and self.processes.count == 1):
                        raise Interrupted(self._signal or signal.SIGTERM)
            except Interrupted:
                self._signal = self._signal or signal.SIGTERM  # which another process was sent
            if self._saved != self.step:
                self.save(None)
        interrupted = self.step < self.settings.steps or self._signal is not None
        return Outcome(step=self.step, interrupted=interrupted, signal=self._signal)

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        with self._interruptible():
            return next(batches, None)

    def _carry_out(self, batch: Batch) -> None:
        """A step, and what is due after it."""
        self.train_step(to_device(batch, self.processes.device))
        self._log(len(batch.inputs))
        error = self.evaluate() if self._due(self.settings.evaluate_every) else None
        if error is not None or self._due(self.settings.checkpoint_every):
            self.save(error)  # last: what a run resumes from has its numbers in the journal, kill or no kill

    def train_step(self, batch: Batch) -> None:
        """One optimizer step on this process's share of a global batch."""
        parts = split_batch(batch, self.settings.accumulate)
        for index, part in enumerate(parts):
            with self._synchronised(index == len(parts) - 1):
                with self._autocast():
                    losses = self.task(part)
                torch.autograd.backward(torch.stack(list(losses.values())).sum() / len(parts))
        self._norm = clip_grad_norm_(self.backbone.parameters(), self.settings.clip)
        self._rate = float(self.schedule.get_last_lr()[0])
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._losses = {name: value.detach() for name, value in losses.items()}
        self.step += 1

    def evaluate(self) -> float:
        """Evaluate on held-out trajectories; returns what is selected by. Raises Interrupted after a signal."""
        with self._interruptible():
            report = self.evaluator.evaluate(self.backbone, lambda: self._signal)
        training_mode(self.backbone)
        self._clock = (time.monotonic(), 0)
        if self.journal:
            self.journal.write(self.step, "evaluation", report.numbers())
        return report.selected()

    def save(self, error: float | None) -> None:
        """Write a checkpoint of the whole state, unless the weights are beyond saving."""
        self._check_finite()
        state = collect_state(self.backbone, self.optimizer, self.schedule, self.step, self.processes.rank)
        self.checkpoints.save(state, CheckpointRecord(step=self.step, processes=self.processes.count, error=error))
        self._saved = self.step

    def _due(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0

    def _log(self, samples: int) -> None:
        """Every few steps: numbers to journal and bar."""
        started, count = self._clock
        self._clock = (started, count + samples * self.processes.count)  # of this stretch between entries
        if not self._due(self.settings.log_every):
            return
        self._check_finite()
        rate = self._clock[1] / (time.monotonic() - started)
        self._clock = (time.monotonic(), 0)
        means = self.processes.sum(torch.stack(list(self._losses.values()))) / self.processes.count
        losses = dict(zip(self._losses, means.tolist(), strict=True))
        if self.journal:
            others = {"gradient_norm": float(self._norm), "learning_rate": self._rate, "samples_per_second": rate}
            self.journal.write(self.step, "train", losses | others)
        words = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
        self.bar.show(self.step, f"{words}  lr {self._rate:.2e}  {rate:.0f} samples/s")

    def _check_finite(self) -> None:
        if not all(torch.isfinite(value) for value in (*self._losses.values(), self._norm)):
            values = ", ".join(f"{name} = {float(value)}" for name, value in self._losses.items())
            latest = self.checkpoints.latest()
            said = f"training diverged by step {self.step}: {values}, gradient norm {float(self._norm)}"
            why = self.suspect(range(self._checked, self.step)) or "lower optimizer.learning_rate or trainer.clip"
            raise RunError(f"{said}; {why} (last good checkpoint: {latest or 'none'})")
        self._checked = self.step

    def _autocast(self) -> torch.autocast:
        enabled = self.settings.precision == "bfloat16"
        return torch.autocast(self.processes.device.type, torch.bfloat16, enabled=enabled)

    def _synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Gradients of accumulated parts are exchanged with the last one only."""
        if isinstance(self.task, DistributedDataParallel) and not last:
            return self.task.no_sync()
        return nullcontext()

    def _ask(self, number: int) -> None:
        self._signal = number
        self._check_interrupted()

    def _check_interrupted(self) -> None:
        """Raises Interrupted after a signal where nothing that is saved is being changed."""
        if self._signal is not None and self._idle and self.processes.count == 1:  # several have to agree first
            raise Interrupted(self._signal)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """For what changes nothing that is saved. Raises Interrupted as soon as a signal comes, or if one has come."""
        self._idle = True
        try:
            self._check_interrupted()
            yield
        finally:
            self._idle = False
