"""Checkpoints: the whole state in one dictionary, complete or not there at all."""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial as partial_call
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, evolve
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_saver import save

from opframe.files.atomic import write_atomically
from opframe.processes import ElsewhereError, Processes
from opframe.run.background import Background
from opframe.run.copy import Copy
from opframe.weights.callback_state import read_states, taken_apart
from opframe.weights.checkpoints import (
    CheckpointRecord,
    check_sound,
    checkpoint_path,
    complete_checkpoints,
    mark_check,
    read_best,
    read_record,
    steps_in,
    stored,
    superfluous,
)
from opframe.weights.location import WeightsError
from opframe.weights.stored import first_cause, load_stored
from opframe_registry import RunError


class Checkpoints:
    """The folder of checkpoints of a run: `step-00000500/` and so on, and `best.json`.

    Kept are the newest, so many as `keep` says, the best, and those at multiples of `keep_every` steps. `run` is what
    this run is known by, and `copy`, in the leading process, takes a copy elsewhere.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        processes: Processes,
        run: str | None = None,
        keep_every: int | None = None,
        copy: Copy | None = None,
    ) -> None:
        self._folder, self._keep, self._processes = folder, keep, processes
        self._run, self._keep_every, self._copy = run, keep_every, copy
        self._background = Background(processes)
        self._begun: Path | None = None
        self.seconds: float | None = None
        """How long the last one took to be written, once that is known."""

    def latest(self) -> Path | None:
        """The newest complete checkpoint."""
        found = complete_checkpoints(self._folder)
        return found[-1] if found else None

    def save(self, state: dict[str, Any], record: CheckpointRecord, background: bool = False) -> None:
        """Write a checkpoint under another name, then rename it; only then delete old ones.

        In the `background` this returns as soon as the state is copied; what goes wrong later is raised by `settle`, or
        by the next one, which waits for it. Raises RunError when it, or the one before, cannot be written; earlier
        checkpoints are untouched.
        """
        self.settle()
        begun = time.monotonic()
        final = checkpoint_path(self._folder, record.step)
        partial = self._folder / f"{final.name}.partial"
        self._processes.let_leader(lambda: self._make_room(partial))
        try:
            if background:
                self._begun = final
                self._background.begin(state, partial, partial_call(self._finish_as_leader, partial, final, record))
                return
            with _quiet():
                save(state, checkpoint_id=partial, no_dist=self._processes.count == 1)
            if self._processes.leads:
                self._finish(partial, final, record)
        except (OSError, RuntimeError, CheckpointException) as error:
            said = self._failure(final, error)
            if isinstance(error, CheckpointException) and not self._processes.leads:
                raise ElsewhereError(said) from error  # all of them have heard of it
            shutil.rmtree(partial, ignore_errors=True)
            raise RunError(said) from error
        self._processes.wait()
        self.seconds = time.monotonic() - begun

    def settle(self) -> None:
        """Wait for what is being written. Raises RunError, in the leading process, where it could not be."""
        if not self._background.busy:
            return
        self.seconds, error = self._background.wait()
        final = self._begun or self._folder
        said = self._processes.first_words(self._failure(final, error) if error is not None else "")
        if said:
            shutil.rmtree(final.with_name(f"{final.name}.partial"), ignore_errors=True)
            raise (RunError if self._processes.leads else ElsewhereError)(said) from error

    def close(self) -> None:
        """Wait for what is being written, where training ends in another way; what went wrong is not said any more.

        Then for what is being copied.
        """
        self._background.wait()
        if self._copy is not None:
            self._copy.close()

    def _finish_as_leader(self, partial: Path, final: Path, record: CheckpointRecord) -> None:
        if self._processes.leads:
            self._finish(partial, final, record)

    def _make_room(self, partial: Path) -> None:
        """Raises RunError where nothing can be written, or where the run folder is gone."""
        try:
            shutil.rmtree(partial, ignore_errors=True)
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(self._failure(partial.with_suffix(""), error)) from error

    def _finish(self, partial: Path, final: Path, record: CheckpointRecord) -> None:
        said = asdict(evolve(record, run=self._run, files=stored(partial)))
        with (partial / "mark.json").open("w", encoding="utf-8") as mark:
            mark.write(json.dumps({**said, "check": mark_check(said)}))
            mark.flush()
            os.fsync(mark.fileno())
        _on_disk(partial)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
        _on_disk(self._folder)
        if record.error is not None and _is_better(record, read_best(self._folder)):
            write_atomically(self._folder / "best.json", json.dumps(asdict(record)))
        self._delete_old()
        if self._copy is not None:
            self._copy.begin()

    def _delete_old(self) -> None:
        best = read_best(self._folder)
        for step in superfluous(steps_in(self._folder), self._keep, self._keep_every, best.step if best else None):
            shutil.rmtree(checkpoint_path(self._folder, step))

    def _failure(self, final: Path, error: BaseException) -> str:
        latest = self.latest()
        safe = f"the last complete checkpoint, {latest}, is untouched" if latest else "there is no earlier checkpoint"
        return f"{final}: cannot be written ({first_cause(error)}); {safe}"


def _on_disk(folder: Path) -> None:
    """Have the system write down which files are in a folder, where it can be asked to."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_better(record: CheckpointRecord, best: CheckpointRecord | None) -> bool:
    """Whether a checkpoint is to be the best one. An error on other data says nothing of this one."""
    if best is None or best.error is None or best.split != record.split:
        return True
    return record.error is not None and record.error <= best.error


def collect_state(
    backbone: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    step: int,
    rank: int,
) -> dict[str, Any]:
    """Everything that training depends on, named so that neither wrapping nor sharding changes a name."""
    model, optimizer_state = get_state_dict(backbone, optimizer)
    return {
        "model": model,
        "optimizer": optimizer_state,
        "schedule": schedule.state_dict(),
        "progress": {"step": step},
        f"random_{rank}": _random_state(),
    }


def collect_callbacks(states: Mapping[str, Any], leads: bool) -> dict[str, Any]:
    """The states of callbacks, as part of the whole state: those of the leading process, for all."""
    return {"callbacks": {name: taken_apart(name, state) for name, state in states.items()}} if states and leads else {}


def read_callbacks(path: Path, processes: Processes) -> dict[str, Any]:
    """The states of callbacks in a checkpoint, by their names. Raises RunError naming the checkpoint."""
    with _in_words():
        return read_states(path, alone=processes.count == 1)


def restore_state(
    path: Path,
    backbone: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    processes: Processes,
) -> int:
    """Load a checkpoint into live objects; returns its step. Raises RunError naming the checkpoint."""
    state = collect_state(backbone, optimizer, schedule, 0, processes.rank)
    known_random = read_record(path).processes == processes.count
    if not known_random:
        state.pop(f"random_{processes.rank}")
    _load(path, state, processes)
    set_state_dict(backbone, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    if known_random:
        _set_random_state(state[f"random_{processes.rank}"])
    return int(state["progress"]["step"])


def _load(path: Path, state: dict[str, Any], processes: Processes) -> None:
    """Read a checkpoint into a state. Raises RunError naming the checkpoint."""
    with _in_words():
        load_stored(path, state, alone=processes.count == 1)


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except WeightsError as error:
        raise RunError(str(error)) from error


def check_checkpoint(path: Path, run: str | None, processes: Processes) -> None:
    """Raises RunError where a checkpoint is damaged, or of another run; one process reads its files for all."""

    def check() -> None:
        check_sound(path)
        _check_run(path, run)

    processes.let_leader(check)


def _check_run(path: Path, run: str | None) -> None:
    said = read_record(path).run
    if said is not None and run is not None and said != run:
        raise RunError(
            f"{path} is not of this run: it says {said}, the run folder {run}; remove it, or put back its own"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warning that one process saves as one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _random_state() -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
