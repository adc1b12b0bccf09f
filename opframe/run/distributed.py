"""Starting processes, and joining those that train together."""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from opframe.processes import Processes
from opframe.run.memory import keep_freed_memory
from opframe.signals import SIGNALS, exit_code, left_alone
from opframe_registry import RunError

_TO_SAVE = 300  # seconds that processes have to end their step and save after a signal, before they are killed
_LOST = 1  # exit code of a process that has lost another one
_DEATH_SIGNAL = 1  # prctl(2)


def choose_device(wanted: str) -> torch.device:
    """The device of this process. Raises RunError when CUDA is asked for and not there."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise RunError('trainer.device = "cuda", but torch finds no CUDA device; use "auto" or "cpu"')
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def assumed(wanted: str) -> Processes:
    """One process as it would train on this machine, which need not have the device that is wanted."""
    device = choose_device(wanted if torch.cuda.is_available() else "cpu")
    return Processes(rank=0, count=1, device=device)


def launch(words: Sequence[str], processes: int, quiet: bool = False) -> int:
    """Run this command line in several processes, as torchrun would; returns the exit code of the first to fail.

    A signal is passed on to them, and they end as one would. What `quiet` ones say of their progress is not shown.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    logging.disable(logging.ERROR)  # the processes speak for themselves
    logs = TemporaryDirectory(prefix="opframe-")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=logs.name, redirects=Std.OUT if quiet else Std.NONE),
        **_where_known({"shutdown_timeout": _TO_SAVE, "signals_to_handle": ",".join(each.name for each in SIGNALS)}),
    )
    try:
        with logs, left_alone():
            elastic_launch(config, sys.executable)("-m", "opframe", *words)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return exit_code(-code) if code < 0 else code
    except SignalException as error:  # the processes have been told, and have ended
        return exit_code(error.sigval)
    finally:
        logging.disable(logging.NOTSET)
    return 0


def _where_known(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What torch lets one say; before 2.8 processes always have 30 seconds, and some signals end the launcher."""
    known = {field.name for field in dataclasses.fields(LaunchConfig)}
    return {name: value for name, value in settings.items() if name in known}


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
    _end_with_launcher()
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(rank=dist.get_rank(), count=dist.get_world_size(), device=device)
    except RuntimeError as error:
        if not _is_of_another(error):
            raise
        words = f"process {dist.get_rank()} has lost another one that it trained with; see what that has said"
        print(f"error: {words}, or how it ended", file=sys.stderr)
        sys.exit(_LOST)
    finally:
        dist.destroy_process_group()


def _is_of_another(error: RuntimeError) -> bool:
    """Whether processes could not exchange anything, which is the fault of one that is gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _end_with_launcher() -> None:
    """Have the system send SIGTERM when the process that has started this one is gone, where it can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM.value)
