"""Starting processes, and joining those that train together."""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.distributed.rendezvous import rendezvous

from opframe.config.settings import Trainer
from opframe.processes import ElsewhereError, Processes, is_of_another
from opframe.run.lives import of_this_life
from opframe.run.memory import keep_freed_memory
from opframe.run.peers import LOST, MISTAKE, Peers
from opframe.signals import SIGNALS, exit_code, left_alone
from opframe_registry import OpframeError, RunError, seconds

_TO_SAVE = 300  # seconds that processes have to end their step and save after a signal, before they are killed
_GRACE = 60  # seconds that NCCL, which ends a process without a word, waits longer than those who can say something
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

    That of a mistake goes before any other. A signal is passed on to them, and they end as one would. What `quiet` ones
    say of their progress is not shown.
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
        with logs, left_alone(), _waking_children():
            elastic_launch(config, sys.executable)("-m", "opframe", *words)
    except ChildFailedError as error:
        if MISTAKE in [failure.exitcode for failure in error.failures.values()]:
            return MISTAKE  # whatever became of the others, who may have ended in the midst of something
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
def _waking_children() -> Iterator[None]:
    """What is sent to this process also wakes children that were stopped (SIGSTOP), so that they hear of their end."""
    hears, told = os.pipe()
    os.set_blocking(told, False)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    threading.Thread(target=_wake_children, args=(hears,), name="wake", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(told)


def _wake_children(hears: int) -> None:
    while os.read(hears, 1):
        for children in Path("/proc/self/task").glob("*/children"):
            for child in children.read_text().split():
                with suppress(OSError):
                    os.kill(int(child), signal.SIGCONT)
    os.close(hears)


@contextmanager
def joined(settings: Trainer) -> Iterator[Processes]:
    """Join the processes that torchrun started, if it did, and leave them at the end.

    Everything that holds the distributed model must be gone before this ends, or gloo may abort.
    """
    device = choose_device(settings.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        keep_freed_memory()
    if "WORLD_SIZE" not in os.environ or os.environ["WORLD_SIZE"] == "1":
        yield Processes(rank=0, count=1, device=device)
        return
    _end_with_launcher()
    store, rank, count = next(rendezvous("env://"))
    try:
        store = of_this_life(store, rank, count, seconds(settings.timeout))
    except TimeoutError as error:  # one hangs before anybody knows it
        print(f"error: {error}", file=sys.stderr)
        sys.exit(LOST)
    peers = Peers(store, rank, count, seconds(settings.timeout), settings.timeout)
    questions = _begin_group(store, rank, count, device, seconds(settings.timeout))
    try:
        with peers.alive():
            yield Processes(rank=rank, count=count, device=device, await_leader=peers.await_leader, questions=questions)
    except ElsewhereError:
        sys.exit(MISTAKE)
    except OpframeError:
        if peers.speaks():
            raise
        sys.exit(MISTAKE)
    except (RuntimeError, TimeoutError) as error:
        if not is_of_another(error):
            raise
        sys.exit(peers.lose(error))
    finally:
        dist.destroy_process_group()


def _begin_group(store: Store, rank: int, count: int, device: torch.device, timeout: int) -> dist.ProcessGroup | None:
    """Let torch bring the processes together; returns those that ask each other in main memory, if they are others."""
    on_gpus = device.type == "cuda"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpus else "gloo",
        store=store,
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=timeout + _GRACE if on_gpus else timeout),
    )
    return dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout)) if on_gpus else None


def _end_with_launcher() -> None:
    """Have the system send SIGTERM when the process that has started this one is gone, where it can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM.value)
