"""What is said of training every few steps, to loggers and on the bar."""

from __future__ import annotations

import time

import torch
from attrs import define, field

from opframe.console import Bar
from opframe.run.loggers import Loggers
from opframe.run.step import Step
from opframe.run.watching import Jumps


@define(kw_only=True)
class Entries:
    """Brings together the numbers of the steps since the last entry."""

    of: Step
    loggers: Loggers
    _since: float = field(factory=time.monotonic, init=False)
    _samples: int = field(default=0, init=False)
    _jumps: Jumps = field(factory=Jumps, init=False)

    def begin(self) -> None:
        """What comes from now on is for the next entry; a pause for something else does not count."""
        self._since, self._samples = time.monotonic(), 0
        self.of.watch.begin()

    def count(self, own: int) -> None:
        """A step is done, in which this process had its `own` samples of the batch."""
        self._samples += self.of.samples(own)

    def enter(self, step: int, bar: Bar) -> str | None:
        """Hand the numbers to loggers and bar; returns what is remarkable about them, in words."""
        now, watch, processes = self.of, self.of.watch, self.of.processes
        rate = self._samples / (time.monotonic() - self._since)
        own = torch.stack(list(now.losses.values())) * now.weight
        sums, numbers = watch.entry(own, now.backbone, processes)
        self._since, self._samples = time.monotonic(), 0
        losses = {name: total / processes.count for name, total in zip(now.losses, sums, strict=True)}
        if self.loggers:
            others = {"gradient_norm": float(now.norm), "learning_rate": now.rate, "samples_per_second": rate}
            self.loggers.log(step, "train", losses | others | numbers)
        words = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
        bar.show(step, f"{words}  lr {now.rate:.2e}  {rate:.0f} samples/s")
        return self._jumps.remark(step, sum(losses.values()))
