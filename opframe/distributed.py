"""The process group, and the few questions that are asked of it."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from attrs import frozen
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from opframe.memory import keep_freed_memory
from opframe_registry import RunError


@frozen(kw_only=True)
class Processes:
    """This process among those that train together."""

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            dist.barrier()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return self.sum(torch.tensor([float(flag)])).item() > 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        if self.count == 1:
            return values
        values = values.to(self.device)
        dist.all_reduce(values)
        return values


def choose_device(wanted: str) -> torch.device:
    """The device of this process. Raises RunError when CUDA is asked for and not there."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise RunError('trainer.device = "cuda", but torch finds no CUDA device; use "auto" or "cpu"')
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def launch(words: Sequence[str], processes: int) -> int:
    """Run this command line in several processes, as torchrun would; returns the exit code of the first to fail."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes speak for themselves
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "opframe", *words)
    except ChildFailedError as error:
        return error.get_first_failure()[1].exitcode
    except SignalException:  # Ctrl-C: the processes have been told, and have saved
        return 130
    return 0


@contextmanager
def joined(wanted: str) -> Iterator[Processes]:
    """Join the processes that torchrun started, if it did, and leave them at the end.

    Everything that holds the distributed model must be gone before this ends, or gloo may abort.
    """
    device = choose_device(wanted)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        keep_freed_memory()
    if "WORLD_SIZE" not in os.environ or os.environ["WORLD_SIZE"] == "1":
        yield Processes(rank=0, count=1, device=device)
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(rank=dist.get_rank(), count=dist.get_world_size(), device=device)
    finally:
        dist.destroy_process_group()
