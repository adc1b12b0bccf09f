"""Refusing what this machine surely cannot hold, before anything of it is allocated, with what would fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod

import torch
from attrs import evolve

from opframe.config.settings import Experiment
from opframe.console import counted
from opframe.files.limits import free_memory, most_threads
from opframe.mixture.source import Source
from opframe.processes import Processes
from opframe.run.assembly import Sources, open_sources
from opframe.run.memory_estimate import NUMBER, Machine, Network, RollOut, Step, count_network, this_machine
from opframe.run.sharing import shard_size
from opframe_registry import ConfigError, OpframeError, PluginError, RunError

_COARSER = 8  # a grid with fewer points than that along an axis is another experiment
Option = tuple[str, str, str]
"""A key, the value it has, and the largest one that fits."""


def check_batches(experiment: Experiment, processes: int) -> None:
    """Before the data are there: that this machine has the memory for the batches of training, and the threads.

    As long as nothing else is known, they are taken to have one channel. Raises ConfigError.
    """
    workers, threads = experiment.data.workers, most_threads()
    if threads is not None and workers >= threads:
        raise ConfigError(
            f"data.workers = {workers}: this machine lets a process have {threads:,} threads; a few for each core are "
            "plenty"
        )
    grid = (1,) if experiment.data.resize == "native" else experiment.data.grid
    step, machine = _step(experiment, experiment.data.channels or 1, grid, processes), Machine(memory=free_memory())
    if step.lacks(Network(), machine):  # the number that fits is to be the right one, where the data are there
        _check_step(evolve(step, channels=experiment.data.channels or _channels(experiment)), Network(), machine)


def _channels(experiment: Experiment) -> int:
    try:
        return len(open_sources(experiment).fields.channels)
    except OpframeError:
        return 1


def check_memory(experiment: Experiment, sources: Sources, processes: Processes, training: bool = True) -> None:
    """That this machine can hold the batches, the network and the roll-outs. Raises ConfigError.

    Of several processes on a machine the first one speaks for all, before the others have taken anything.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    machine = this_machine(processes.device)
    seen = [source.seen(sources.fields).grid for source in sources.train]
    step = _step(experiment, len(sources.fields.channels), min(seen, key=prod), processes.count)
    if training:
        _check_step(step, Network(), machine)  # what is too large here may be too large even to be counted
    network = count_network(experiment, sources.fields)
    network = network if training else Network(weights=network.weights)
    _check_network(experiment, network, step.here, machine)
    if training:
        _check_step(step, network, machine)
    for source in (*sources.validation, *sources.test, *sources.zero_shot):
        _check_evaluation(experiment, source, sources, step, network, machine)


def _step(experiment: Experiment, channels: int, grid: tuple[int, ...], processes: int) -> Step:
    return Step(
        batch_size=experiment.data.batch_size,
        accumulate=experiment.trainer.accumulate,
        workers=experiment.data.workers,
        history=experiment.data.history,
        frames=experiment.objective.frames,
        horizon=experiment.data.horizon,
        channels=channels,
        grid=grid,
        steps=experiment.trainer.steps,
        processes=processes,
        here=int(os.environ.get("LOCAL_WORLD_SIZE", processes)),
        shards=shard_size(experiment.parallel, processes),
    )


def _check_step(step: Step, network: Network, machine: Machine) -> None:
    lacks = step.lacks(network, machine)
    if not lacks:
        return
    options = _options(step, lambda other: not other.lacks(network, machine))
    key, now, would = options[0] if options else ("data.batch_size", str(step.batch_size), "")
    others = "".join(f", or {key} = {value}" for key, _, value in options[1:])
    raise ConfigError(
        f"{key} = {now}: a training step of {counted(step.batch_size, 'sample')} of {step.history} + {step.frames} "
        f"frames of {counted(step.channels, 'channel')} on {'×'.join(map(str, step.grid))}, with "
        f"{counted(step.workers, 'worker')}, {lacks}; "
        + (f"{would} would fit{others}" if options else "no smaller value of a single key would fit")
    )


def _options(step: Step, fits: Callable[[Step], bool]) -> list[Option]:
    """Single keys that would do if they were smaller: of those that enter linearly the first one, and the grid."""
    parts = step.processes * step.accumulate
    linear: list[tuple[str, int, int, int, Callable[[int], Step]]] = [
        ("data.batch_size", parts, 1, step.batch_size // parts, lambda n: evolve(step, batch_size=parts * n)),
        ("data.workers", 1, 0, step.workers, lambda n: evolve(step, workers=n)),
        ("objective.frames", 1, 1, step.frames, lambda n: evolve(step, frames=n)),
        ("data.horizon", 1, 1, step.horizon, lambda n: evolve(step, horizon=n)),
        ("data.history", 1, 1, step.history, lambda n: evolve(step, history=n)),
        ("data.channels", 1, 1, step.channels, lambda n: evolve(step, channels=n)),
    ]
    options: list[Option] = []
    for key, unit, least, now, changed in linear:
        largest = _largest(least, now, lambda n, changed=changed: fits(changed(n)))  # type: ignore[misc]
        if largest is not None and (not options or key == "data.workers"):
            options.append((key, str(unit * now), str(unit * largest)))
    points = _largest(1, step.grid[0], lambda n: fits(evolve(step, grid=_scaled(step.grid, n))))
    if points is not None and (not options or points * _COARSER >= step.grid[0]):
        grid = _scaled(step.grid, points - points % 16 if points > 16 else points)
        options.append(("data.grid", str([*step.grid]), str([*grid])))
    return options


def _scaled(grid: tuple[int, ...], first: int) -> tuple[int, ...]:
    """A grid in the same proportions with so many points along its first axis."""
    return tuple(max(1, points * first // grid[0]) for points in grid)


def _largest(least: int, now: int, fits: Callable[[int], bool]) -> int | None:
    """The largest number from `least` on, and less than `now`, that fits; None if there is none."""
    if now <= least or not fits(least):
        return None
    low, high = least, now
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _check_network(experiment: Experiment, network: Network, here: int, machine: Machine) -> None:
    own = network.weights + network.gradients + network.state
    if lacks := machine.lacks(0, own * (here if machine.gpu is None else 1)):
        free = (machine.memory or 0) // here if machine.gpu is None else machine.gpu
        fits = free * network.weights // own // NUMBER
        raise ConfigError(
            f"[backbone] {experiment.backbone.name}: a network of {network.weights // NUMBER:,} parameters, with what "
            f"training keeps for each, {lacks}; {fits:,} parameters would fit"
        )


def _check_evaluation(
    experiment: Experiment, source: Source, sources: Sources, step: Step, network: Network, machine: Machine
) -> None:
    size = experiment.evaluation.batch_size
    own = min(size, -(-source.metadata.trajectories // step.processes))
    rollout = RollOut(source=source, fields=sources.fields, trajectories=own, here=step.here)
    if lacks := rollout.lacks(network, machine):
        fits = _largest(1, own, lambda n: not evolve(rollout, trajectories=n).lacks(network, machine))
        one = f"not even 1 would fit: lower the key rollout of {source.title}, or data.grid"
        raise ConfigError(
            f"evaluation.batch_size = {size}: to roll out {own} trajectories of {source.title} over {source.rollout} "
            f"frames {lacks}; " + (one if fits is None else f"{fits} would fit")
        )


@contextmanager
def explained() -> Iterator[None]:
    """Says what to do where memory runs out all the same. Raises RunError."""
    try:
        yield
    except (MemoryError, RuntimeError, PluginError) as error:
        cause = error.__cause__ or error
        first = (str(cause).strip() or "no more is to be had").splitlines()[0]
        if isinstance(cause, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in first:
            raise RunError(
                f"memory ran out ({first}); raise trainer.accumulate, or lower data.batch_size, evaluation.batch_size, "
                "data.workers or the size of the network"
            ) from error
        raise
