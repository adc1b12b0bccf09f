"""How a run is getting on, from what lies in its folder; also while it trains. Nothing slow is imported."""

from __future__ import annotations

import json
import os
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

import attrs
from attrs import frozen

from opframe.files.atomic import write_atomically
from opframe.files.retries import redacted
from opframe.run.lock import holder
from opframe.weights.checkpoints import checkpoint_path, latest_record, read_best
from opframe_registry import OpframeError, RunError

NAME = "ended.json"
_TAIL = 2**18  # bytes of the journal that are read
_LATELY = 20  # entries that speed and the usual loss are taken of
_GAP = 5.0  # times the usual duration: between such entries the run was not running
_OTHER = {"step", "kind", "time"}
_NO_LOSS = {"gradient_norm", "learning_rate", "samples_per_second", "data_wait", "memory_gb"}
_NO_LOSS |= {"save_stall", "save_seconds"}


@frozen(kw_only=True)
class Status:
    """What is known of a run; None is not known. `state` is in words, `losses` are the last ones by name.

    `seconds` are those that a step takes, `left` those until the last step, and `saved_ago` those since the last
    checkpoint. `wrong` is what ended the run before its time.
    """

    folder: str
    state: str
    process: int | None
    step: int
    steps: int
    losses: Mapping[str, float]
    by_dataset: Mapping[str, float]
    usual: float | None = None
    seconds: float | None = None
    samples_per_second: float | None = None
    data_wait: float | None = None
    memory_gb: float | None = None
    evaluated: tuple[int, float] | None = None
    best: tuple[int, float] | None = None
    saved: int | None = None
    saved_ago: float | None = None
    left: float | None = None
    wrong: str | None = None

    def facts(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return attrs.asdict(self)


def read_status(folder: Path) -> Status:
    """How the run in a folder is getting on. Raises RunError where there is none, or nothing can be read of it."""
    settings = _settings(folder)
    records = list(_records(folder / "metrics.jsonl"))
    train = [record for record in records if record["kind"] == "train"]
    process, checkpoints = holder(folder), folder / "checkpoints"
    latest = latest_record(checkpoints)
    saved = latest.step if latest else None
    last: Mapping[str, Any] = train[-1] if train else {}
    step = max(int(last.get("step", 0)), saved or 0)
    steps = int(settings["trainer"]["steps"])
    seconds = _seconds_a_step(train)
    best = read_best(checkpoints)
    ended = _ended(folder)
    state = _state(folder, process, step, latest.stopped if latest else None, ended)
    plain = {name: value for name, value in last.items() if name not in _OTHER and isinstance(value, int | float)}
    return Status(
        folder=str(folder),
        state=state,
        process=process,
        step=step,
        steps=steps,
        losses={name: value for name, value in plain.items() if "/" not in name and name not in _NO_LOSS},
        by_dataset={
            name.removeprefix("by_dataset/"): value for name, value in plain.items() if name.startswith("by_dataset/")
        },
        usual=_usual(train),
        seconds=seconds,
        samples_per_second=plain.get("samples_per_second"),
        data_wait=plain.get("data_wait"),
        memory_gb=plain.get("memory_gb"),
        evaluated=_evaluated(records),
        best=(best.step, best.error) if best and best.error is not None else None,
        saved=saved,
        saved_ago=time.time() - checkpoint_path(checkpoints, saved).stat().st_mtime if saved is not None else None,
        left=(steps - step) * seconds if seconds and process is not None and step < steps else None,
        wrong=ended.get("words") if process is None and ended.get("how") == "error" else None,
    )


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "config.toml"
    if not path.exists():
        what = "is being prepared, or is no run" if holder(folder) is not None else "is not the folder of a run"
        raise RunError(f"{folder} {what}: there is no config.toml in it")
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
        int(settings["trainer"]["steps"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from error
    return settings


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The last entries of the journal, without what is torn."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _TAIL, 0))
        lines = file.read().splitlines()
    for line in lines:
        try:
            record = json.loads(line)
            if isinstance(record, dict) and {"step", "kind", "time"} <= record.keys():
                yield record
        except ValueError:
            continue


def _seconds_a_step(train: list[dict[str, Any]]) -> float | None:
    """The mean of late, evaluations and checkpoints included, but not the time in which the run was not running."""
    pairs = list(pairwise(train))[-_LATELY:]
    each = [
        (two["time"] - one["time"]) / (two["step"] - one["step"]) for one, two in pairs if two["step"] > one["step"]
    ]
    if not each:
        return None
    usual = median(each)
    return fmean(value for value in each if value <= _GAP * usual)


def _usual(train: list[dict[str, Any]]) -> float | None:
    """The median of the sum of losses of late."""
    sums = []
    for record in train[-_LATELY:]:
        values = [record[name] for name in record if "/" not in name and name not in _NO_LOSS | _OTHER]
        if all(isinstance(value, int | float) for value in values):
            sums.append(sum(values))
    return median(sums) if sums else None


def _evaluated(records: list[dict[str, Any]]) -> tuple[int, float] | None:
    """The step of the last evaluation, and the mean error over datasets of a whole roll-out."""
    found = [record for record in records if record["kind"] == "evaluation"]
    value = found[-1].get("mean/full") if found else None
    return (int(found[-1]["step"]), float(value)) if isinstance(value, int | float) else None


def _state(folder: Path, process: int | None, step: int, stopped: str | None, ended: Mapping[str, Any]) -> str:
    if process is not None:
        return "running" if step or (folder / "metrics.jsonl").exists() else "preparing"
    if (folder / "report.json").exists():
        return f"finished, stopped: {stopped}" if stopped else "finished"
    how = ended.get("how")
    if how == "error":
        return "ended by an error"
    if how == "interrupted":
        return "interrupted; --resume goes on"
    return "ended without a word; --resume goes on"


def _ended(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / NAME).read_bytes())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


@contextmanager
def end_noted(folder: Path) -> Iterator[None]:
    """Leaves in the run folder what ends a run before its time, for those who look later."""
    (folder / NAME).unlink(missing_ok=True)
    try:
        yield
    except (OpframeError, OSError, RuntimeError) as error:
        _note(folder, "error", str(error) or type(error).__name__)
        raise
    except KeyboardInterrupt as error:
        _note(folder, "interrupted", str(error))
        raise


def note_interruption(folder: Path, words: str) -> None:
    """Leave there that the run was asked to end, and has saved."""
    _note(folder, "interrupted", words)


def _note(folder: Path, how: str, words: str) -> None:
    if not (folder / "config.toml").exists() or (
        how == "error" and os.environ.get("RANK", "0") != "0" and (folder / NAME).exists()
    ):
        return
    try:
        write_atomically(folder / NAME, json.dumps({"how": how, "words": redacted(words), "time": time.time()}))
    except OSError:  # what has ended the run may be that nothing can be written
        return
