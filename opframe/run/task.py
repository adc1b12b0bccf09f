"""What is computed in a step: backbone and objective together, compiled and distributed as the settings say."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from opframe.config.settings import Trainer as Settings
from opframe.processes import Processes
from opframe.run.sharing import is_shared
from opframe_registry import Batch, LossFunction


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
    """The task, compiled and distributed as the settings say. A backbone that is sharded already is left as it is."""
    task: nn.Module = Task(backbone, loss)
    if settings.compile:
        task.compile()
    if processes.count > 1 and not is_shared(backbone):
        task = DistributedDataParallel(task)
    return task
