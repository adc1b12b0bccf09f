"""What a run takes of memory at the very least.

A lower bound. Counted is what surely is there at one time: batches, what is predicted, the weights with their gradients
and the optimizer's state. What lies between the first layer and the last is not: a run that is refused cannot work,
one that is not refused may still be too large.
"""

from __future__ import annotations

import sys
from math import prod

import torch
from attrs import frozen

from opframe.config.settings import Experiment
from opframe.console import bytes_in_words
from opframe.files.limits import free_memory
from opframe.mixture.source import Source
from opframe.run import assembly
from opframe.run.parameters import parameter_groups
from opframe_registry import ConfigError, Fields, PluginError, Window

NUMBER = 4  # bytes of a float32
_WINDOW = sys.getsizeof(Window(0, 0, 0)) + 8  # and a pointer to it


@frozen(kw_only=True)
class Machine:
    """What is free: bytes of main memory, and of the GPU that is used. None: not known, or there is none."""

    memory: int | None
    gpu: int | None = None

    def lacks(self, main: int, gpu: int) -> str:
        """What is too small, in words; nothing if all is large enough. Without a GPU, main memory is to hold both."""
        if self.gpu is None:
            return _lacks(main + gpu, self.memory, "memory")
        return _lacks(main, self.memory, "memory") or _lacks(gpu, self.gpu, "GPU memory")


def _lacks(need: int, free: int | None, name: str) -> str:
    if free is None or need <= free:
        return ""
    return f"needs at least {bytes_in_words(need)} of {name}, and this machine has {bytes_in_words(free)} free"


def this_machine(device: torch.device) -> Machine:
    """What is free now."""
    gpu = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    return Machine(memory=free_memory(), gpu=gpu)


@frozen(kw_only=True)
class Network:
    """Bytes of the weights, of the gradients of those that are trained, and of the optimizer's state."""

    weights: int = 0
    gradients: int = 0
    state: int = 0


def count_network(experiment: Experiment, fields: Fields) -> Network:
    """Counted on torch's meta device, which takes no memory. A network that cannot be made there is not counted.

    Raises ConfigError for one whose size no machine can even address.
    """
    try:
        with torch.device("meta"):
            network = assembly.build_backbone(experiment, fields)
    except PluginError as error:  # in the name of the backbone, whatever was raised
        cause = error.__cause__ or error
        if isinstance(cause, MemoryError) or "overflow" in str(cause).lower():
            name = experiment.backbone.name
            raise ConfigError(f"[backbone] {name}: the network is larger than any machine; make it smaller") from error
        return Network()
    groups = parameter_groups(network, experiment.backbone.parts, experiment.parameters)
    weights = sum(weight.numel() * weight.element_size() for weight in network.parameters())
    trained = sum(weight.numel() * weight.element_size() for group in groups for weight in group["params"])
    return Network(weights=weights, gradients=trained, state=trained * assembly.optimizer_copies(experiment))


@frozen(kw_only=True)
class Step:
    """All that the size of a training step depends on.

    `processes` share a batch, `here` of them on this machine, and `shards` of them one network.
    """

    batch_size: int
    accumulate: int
    workers: int
    history: int
    frames: int
    horizon: int
    channels: int
    grid: tuple[int, ...]
    steps: int
    processes: int
    here: int
    shards: int = 1

    @property
    def _share(self) -> int:
        return self.batch_size // self.processes

    @property
    def _frame(self) -> int:
        return NUMBER * self.channels * prod(self.grid)

    @property
    def batch(self) -> int:
        """Bytes of the samples of one process."""
        return self._share * (self.history + self.frames) * self._frame

    def batches(self) -> int:
        """Bytes of what the loaders of this machine hold: two batches for each worker, one in use, and an order."""
        held = min(2 * self.workers + 1, self.steps)
        return self.here * (held * self.batch + self.batch_size * _WINDOW)

    def lacks(self, network: Network, machine: Machine) -> str:
        """As `Machine.lacks`. What a network predicts is there before the gradients are.

        Each process makes the whole network, before it keeps its share of it.
        """
        predicted = self._share // self.accumulate * self.horizon * self._frame
        shared = (network.weights + network.state) // self.shards
        own = max(network.weights, shared + max(network.gradients // self.shards, predicted))
        if machine.gpu is None:
            return machine.lacks(self.batches(), self.here * own)
        return machine.lacks(self.batches(), self.batch + own)


@frozen(kw_only=True)
class RollOut:
    """Trajectories of a dataset that are rolled out together, by each of the processes `here` on this machine."""

    source: Source
    fields: Fields
    trajectories: int
    here: int

    def lacks(self, network: Network, machine: Machine) -> str:
        """As `Machine.lacks`. What is read is there twice, one by one and stacked; so is then what is predicted."""
        seen = self.source.seen(self.fields)
        frame = self.trajectories * NUMBER * len(seen.channels) * prod(seen.grid)
        read, rollout = (self.fields.history + self.source.rollout) * frame, self.source.rollout * frame
        own = network.weights + read + 2 * rollout
        if machine.gpu is None:
            return machine.lacks(0, self.here * max(own, network.weights + 2 * read))
        return machine.lacks(self.here * 2 * read, own)
