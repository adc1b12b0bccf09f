"""One optimizer step."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from attrs import define, field
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from opframe.config.settings import Trainer as Settings
from opframe.mixture.loading import split_batch
from opframe.processes import Processes
from opframe.run.sharing import whole
from opframe.run.task import wrap
from opframe.run.watching import Watch
from opframe_registry import Batch, LossFunction


@define(kw_only=True)
class Step:
    """Computes gradients of this process's share of a global batch of `batch_size`, and applies them.

    After a step there are its `losses`, the `norm` of the gradient before clipping, the learning `rate`, and `weight`:
    how much this share counts beside those of the other processes, whose mean is 1. `batch_size` None: all shares are
    equal.
    """

    settings: Settings
    backbone: nn.Module
    loss: LossFunction
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    processes: Processes
    watch: Watch = field(factory=Watch)
    batch_size: int | None = None
    losses: dict[str, Tensor] = field(factory=dict, init=False)
    norm: Tensor = field(factory=lambda: torch.zeros(()), init=False)
    rate: float = field(default=0.0, init=False)
    weight: float = field(default=1.0, init=False)
    left_out: bool = field(default=False, init=False)
    _task: nn.Module = field(init=False)

    @_task.default
    def _wrapped(self) -> nn.Module:
        return wrap(self.backbone, self.loss, self.settings, self.processes)

    def begin_anew(self) -> None:
        """Forget the last step, as there is to be none yet."""
        self.losses, self.norm, self.left_out = {}, torch.zeros(()), False
        self.optimizer.zero_grad(set_to_none=True)

    def samples(self, own: int) -> int:
        """Samples of the global batch of which this process has its `own`."""
        return own * self.processes.count if self.batch_size is None else self.batch_size

    def compute(self, batch: Batch) -> None:
        """Losses and gradients.

        Processes average their gradients, so that every sample counts as much as any other only if a share that is
        larger than the mean one weighs more.
        """
        own = len(batch.inputs)
        self.weight = own * self.processes.count / self.samples(own)
        parts = split_batch(batch, self.settings.accumulate)
        found = []
        for index, part in enumerate(parts):
            size = len(part.inputs)
            with self._synchronised(index == len(parts) - 1):
                with self._autocast():
                    computed = self._task(part)
                losses = {name: value for name, value in computed.items() if value.ndim == 0}
                self.watch.saw(part, {name: value for name, value in computed.items() if value.ndim})
                total = torch.stack(list(losses.values())).sum()
                # divided twice, so that equal parts have the digits of a division by their number
                torch.autograd.backward(total / (self.samples(own) / (size * self.processes.count)))
            found.append({name: value.detach() for name, value in losses.items()})
        self.losses = _means(found, [len(part.inputs) / own for part in parts])

    def apply(self, leave_out: bool) -> None:
        """Clip the gradients and change the weights by them, unless the step is to be left out.

        The learning rate goes by steps, whatever becomes of them.
        """
        self.norm = whole(clip_grad_norm_(self.backbone.parameters(), self.settings.clip))
        self.rate = float(self.schedule.get_last_lr()[0])
        self.left_out = leave_out
        if leave_out:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                self.schedule.step()
        else:
            self.optimizer.step()
            self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)

    def broken(self) -> bool:
        """Whether a loss or the gradient of the last step is not finite, in any process; all of them ask."""
        if self.left_out:
            return False
        return self.processes.any(not all(torch.isfinite(value) for value in (*self.losses.values(), self.norm)))

    def _autocast(self) -> torch.autocast:
        enabled = self.settings.precision == "bfloat16"
        return torch.autocast(self.processes.device.type, torch.bfloat16, enabled=enabled)

    def _synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Gradients of accumulated parts are exchanged with the last one only."""
        if isinstance(self._task, DistributedDataParallel) and not last:
            return self._task.no_sync()
        return nullcontext()


def _means(found: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """The losses of all parts of a batch, each as much as its weight."""
    if len(found) == 1:
        return dict(found[0])
    return {
        name: torch.stack([w * each[name] for w, each in zip(weights, found, strict=True)]).sum(0) for name in found[0]
    }
