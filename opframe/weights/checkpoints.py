"""Which checkpoints a run has: complete ones alone, known without loading them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from attrs import field, frozen

from opframe_registry import Split

_NAME = re.compile(r"step-(\d+)")


def _as_tuple(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(names)  # JSON has lists


@frozen(kw_only=True)
class CheckpointRecord:
    """What can be known of a checkpoint without loading it.

    `error` is the mean roll-out L2RE, if evaluated, on the data of `split`: those for validation, or in a run that was
    made before there were any, those for testing. `stopped` says why training was ended here for good, and `callbacks`
    name those whose state is in the checkpoint.
    """

    step: int
    processes: int
    error: float | None = None
    split: Split = "test"
    stopped: str | None = None
    callbacks: tuple[str, ...] = field(default=(), converter=_as_tuple)


def complete_checkpoints(folder: Path) -> list[Path]:
    """Their folders, oldest first."""
    return sorted(
        path for path in folder.glob("step-*") if _NAME.fullmatch(path.name) and (path / "mark.json").exists()
    )


def latest_record(folder: Path) -> CheckpointRecord | None:
    """What is known of the newest complete checkpoint of a folder."""
    found = complete_checkpoints(folder)
    return read_record(found[-1]) if found else None


def latest_step(folder: Path) -> int | None:
    """The step of the newest complete checkpoint of a folder."""
    record = latest_record(folder)
    return record.step if record else None


def steps_of(folder: Path) -> list[int]:
    """The steps of the complete checkpoints of a folder, ascending."""
    return [read_record(path).step for path in complete_checkpoints(folder)]


def read_record(path: Path) -> CheckpointRecord:
    """What is known of a complete checkpoint."""
    return CheckpointRecord(**json.loads((path / "mark.json").read_text(encoding="utf-8")))


def read_best(folder: Path) -> CheckpointRecord | None:
    """What is known of the checkpoint with the least error while training, if it is still there."""
    path = folder / "best.json"
    if not path.exists():
        return None
    record = CheckpointRecord(**json.loads(path.read_text(encoding="utf-8")))
    return record if (folder / f"step-{record.step:08d}").exists() else None
