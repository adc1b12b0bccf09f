"""Implementations that are timed in turns, each in a process of its own, with memory to itself."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection

import torch
from attrs import frozen

from benchmarks.cases import CASES, CPU, Comparison
from opframe.bench.timing import Clock, timed
from opframe.run.memory import keep_freed_memory

Timer = Callable[[], float]
Facts = tuple[list[str], dict[str, float], int]
"""Names of the implementations, errors, parts."""

_REST = 0.05
"""Seconds before a turn, in which OpenMP's threads of the process before stop waiting in a loop for more to do."""


@frozen(kw_only=True)
class Setting:
    """What every process of a row is told: the row, if it is a small one, threads, and by which clock it is timed."""

    row: str
    small: bool
    threads: int
    clock: Clock


@frozen(kw_only=True)
class Players:
    """How to time each implementation once, ours first; their `names`, and the rest of a Comparison."""

    timers: Sequence[Timer]
    names: list[str]
    errors: Mapping[str, float]
    parts: int


@contextmanager
def players(setting: Setting) -> Iterator[Players]:
    """The implementations of a row as processes, which end with the context."""
    with ExitStack() as stack:
        ours, (names, errors, parts) = stack.enter_context(_player(setting, 0))
        others = [stack.enter_context(_player(setting, place))[0] for place in range(1, len(names))]
        yield Players(timers=[ours, *others], names=names, errors=errors, parts=parts)


@contextmanager
def _player(setting: Setting, place: int) -> Iterator[tuple[Timer, Facts]]:
    """How to time the implementation of a place, and what its process says of the row."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_play, args=(setting, place, there), daemon=True)
    process.start()
    there.close()  # so that the end of the process is the end of the pipe
    try:
        facts = here.recv()
        yield partial(_asked, here), facts
    finally:
        here.close()
        process.join()


def _asked(pipe: Connection) -> float:
    time.sleep(_REST)
    pipe.send(None)
    seconds: float = pipe.recv()
    return seconds


def _play(setting: Setting, place: int, pipe: Connection) -> None:
    """One call and its seconds, whenever they are asked for. Ours treats memory as a run does."""
    if place == 0:
        keep_freed_memory()
    torch.set_num_threads(setting.threads)
    torch.manual_seed(0)
    made = CASES[setting.row].make(setting.small)
    if not isinstance(made, Comparison):
        raise TypeError(f"{setting.row} is counted, not timed")
    calls = {"ours": made.ours, **made.theirs}
    pipe.send((list(calls), dict(made.errors), made.parts))
    call = list(calls.values())[place]
    try:
        while True:
            pipe.recv()
            pipe.send(timed(call, CPU, setting.clock))
    except EOFError:
        os._exit(0)  # without a moment for what threads may still do
