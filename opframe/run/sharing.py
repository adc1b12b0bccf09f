"""Sharing a network among processes by its blocks (FSDP2), and computing blocks twice to save memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from opframe.config.parallel import Parallel
from opframe.console import counted
from opframe.processes import Processes
from opframe_registry import ConfigError

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def shard_size(settings: Parallel, processes: int) -> int:
    """How many processes share one copy of the network. Raises ConfigError where they cannot be grouped."""
    if settings.strategy == "ddp":
        return 1
    if settings.strategy == "fsdp":
        return processes
    size = settings.shard or int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    if processes % size:
        divisors = [str(number) for number in range(1, processes + 1) if processes % number == 0]
        raise ConfigError(
            f"parallel.shard = {size}: {counted(processes, 'process')} cannot be grouped by {size}; "
            f"{', '.join(divisors)} would do"
        )
    return size


def share(network: nn.Module, settings: Parallel, processes: Processes, predict: Callable[[], object]) -> nn.Module:
    """Prepare a network for training as the settings say; before its optimizer is made. It keeps its names.

    `predict` has the network predict once, which shows what its blocks are. Raises ConfigError.
    """
    sharded = processes.count > 1 and settings.strategy != "ddp"
    if not (sharded or settings.checkpoint_activations):
        return network
    blocks = blocks_of(network, predict)
    if settings.checkpoint_activations:
        if not blocks:
            raise ConfigError(
                "parallel.checkpoint_activations: this backbone has no blocks (modules in a torch.nn.ModuleList that "
                "are called); remove the key"
            )
        for block in blocks:
            _compute_twice(block)
    if sharded:
        _shard(network, blocks, settings, processes)
    return network


def blocks_of(network: nn.Module, predict: Callable[[], object]) -> list[nn.Module]:
    """The parts that hold most of the weights: modules in a ModuleList, not within another, that are called.

    What is not called, but has its weights taken by others, has to stay with the network itself.
    """
    lists = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.ModuleList)]
    within = [f"{name}." for name, _ in lists]
    outer = [module for name, module in lists if not any(name.startswith(other) for other in within)]
    candidates = [block for module in outer for block in module if next(block.parameters(), None) is not None]
    called: set[nn.Module] = set()
    hooks = [block.register_forward_pre_hook(lambda module, _: called.add(module)) for block in candidates]
    training = {module: module.training for module in network.modules()}
    try:
        network.eval()
        predict()
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode
    return [block for block in dict.fromkeys(candidates) if block in called]


def _compute_twice(block: nn.Module) -> None:
    """Keep the block's inputs alone for its gradients. Its names stay, which a wrapping module would change."""
    forward = block.forward

    def computed(*arguments: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments, **options)
        again = partial(_as_the_first_time, block)
        return checkpoint(forward, *arguments, use_reentrant=False, context_fn=again, **options)

    block.forward = computed


def _as_the_first_time(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of a forward pass and of its repetition, in which what a block remembers is as it was and then is left.

    A gate cools, and BatchNorm gathers means, once for each batch and not twice.
    """
    before = [{name: buffer.clone() for name, buffer in each.items()} for each in _buffers(block)]

    @contextmanager
    def repeated() -> Iterator[None]:
        now = _buffers(block)
        _put(block, before)
        try:
            yield
        finally:
            _put(block, now)

    return nullcontext(), repeated()


def _buffers(block: nn.Module) -> list[dict[str, Tensor]]:
    """Those of each module, without constants, which no checkpoint has."""
    return [
        {
            name: value
            for name, value in module.named_buffers(recurse=False)
            if name not in module._non_persistent_buffers_set  # its state_dict would gather the shards of its weights
        }
        for module in block.modules()
    ]


def _put(block: nn.Module, buffers: list[dict[str, Tensor]]) -> None:
    for module, values in zip(block.modules(), buffers, strict=True):
        for name, value in values.items():
            setattr(module, name, value)


def _shard(network: nn.Module, blocks: list[nn.Module], settings: Parallel, processes: Processes) -> None:
    """Each block gathers its weights when it is called; those of the rest stay gathered for a step."""
    options: dict[str, Any] = {
        "mesh": _mesh(settings, processes),
        # weights are computed with in their own precision: autocast knows better where less will do
        "mp_policy": MixedPrecisionPolicy(reduce_dtype=_PRECISIONS[settings.reduce], cast_forward_inputs=False),
        "offload_policy": CPUOffloadPolicy(pin_memory=processes.device.type == "cuda")
        if settings.cpu_offload
        else OffloadPolicy(),
    }
    # an objective may change predictions in place, since the network's own weights stay gathered
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for block in blocks:
        fully_shard(block, reshard_after_forward=True, **options)
    fully_shard(network, reshard_after_forward=False, **options)
    if list(network.buffers()):
        network.register_forward_pre_hook(
            lambda module, _: same_buffers(module, processes) if module.training else None
        )


def same_buffers(network: nn.Module, processes: Processes) -> None:
    """Give all processes the means of batches, and the like, of the first one."""
    if processes.count > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def _mesh(settings: Parallel, processes: Processes) -> DeviceMesh:
    size = shard_size(settings, processes.count)
    if size == processes.count:
        return init_device_mesh(processes.device.type, (size,))
    names = ("machines", "shards")
    return init_device_mesh(processes.device.type, (processes.count // size, size), mesh_dim_names=names)


@contextmanager
def whole_weights(network: nn.Module) -> Iterator[None]:
    """A context in which every process has all weights, and may predict as often as it likes, with no word to others.

    All processes enter it together; outside of it every prediction is one of all of them.
    """
    parts = [module for module in network.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(part is not network, recurse=False)


def is_shared(network: nn.Module) -> bool:
    """Whether processes have shards of it, so that it predicts in all of them or in none."""
    return isinstance(network, FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which processes have shards as one that each has whole."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
