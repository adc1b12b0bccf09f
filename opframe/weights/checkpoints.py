"""Which checkpoints a run has: complete ones alone, known without loading them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import evolve, field, frozen

from opframe_registry import RunError, Split

_NAME = re.compile(r"step-(\d+)")


def _as_tuple(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(names)  # JSON has lists


@frozen(kw_only=True)
class Stored:
    """What a file of a checkpoint is to be."""

    bytes: int
    sha256: str


def _as_files(files: Mapping[str, Any]) -> dict[str, Stored]:
    return {name: value if isinstance(value, Stored) else Stored(**value) for name, value in files.items()}


@frozen(kw_only=True)
class CheckpointRecord:
    """What can be known of a checkpoint without loading it.

    `error` is the mean roll-out L2RE, if evaluated, on the data of `split`: those for validation, or in a run that was
    made before there were any, those for testing. `stopped` says why training was ended here for good, `rollbacks` how
    often it had gone back to a checkpoint, and `callbacks` name those whose state is in the checkpoint. `run` says
    which run it is of, and `files` what its files are to be; checkpoints of before have neither.
    """

    step: int
    processes: int
    error: float | None = None
    split: Split = "test"
    stopped: str | None = None
    rollbacks: int = 0
    callbacks: tuple[str, ...] = field(default=(), converter=_as_tuple)
    run: str | None = None
    files: Mapping[str, Stored] = field(factory=dict, converter=_as_files)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """The step that a checkpoint's folder is of, by its name; None: it is no such folder."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


def superfluous(steps: Sequence[int], keep: int, keep_every: int | None, best: int | None) -> list[int]:
    """Which of the checkpoints of ascending steps are not to be kept.

    Those are, that are the newest `keep`, the best, and those at multiples of `keep_every`.
    """
    old = steps[:-keep]
    return [step for step in old if step != best and not (keep_every is not None and step % keep_every == 0)]


def complete_checkpoints(folder: Path) -> list[Path]:
    """Their folders, oldest first."""
    return sorted(
        path for path in folder.glob("step-*") if _NAME.fullmatch(path.name) and (path / "mark.json").exists()
    )


def steps_in(folder: Path) -> list[int]:
    """The steps of the complete checkpoints of a folder, ascending, by their names."""
    return [step for path in complete_checkpoints(folder) if (step := step_of(path.name)) is not None]


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
    """What is known of a complete checkpoint. Raises RunError where its mark is damaged, or of a newer opframe."""
    try:
        return _record(path / "mark.json")
    except ValueError as error:
        raise RunError(f"{path} is damaged: mark.json {error}; {_way_out(path)}") from error


def _record(path: Path) -> CheckpointRecord:
    """What a mark says. Raises ValueError, in words, where it is damaged, and RunError for one of a newer opframe."""
    try:
        said = json.loads(path.read_bytes() or b"null")
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read ({error})") from error
    if said is None:
        raise ValueError("is empty")
    if not isinstance(said, dict):
        raise ValueError("is no table")
    check = said.pop("check", None)
    if check is not None and check != mark_check(said):
        raise ValueError("has other bytes than were written")
    unknown = sorted(said.keys() - {each.name for each in attrs.fields(CheckpointRecord)})
    if unknown and check is None and said.get("files"):  # whoever writes checksums writes one of these as well
        raise ValueError("has other bytes than were written")
    if unknown:
        names = ", ".join(map(repr, unknown))
        raise RunError(f"{path} was made by a newer opframe: it has {names}; go on with that one")
    try:
        record = CheckpointRecord(**said)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"is not whole ({error})") from error
    if not (isinstance(record.step, int) and isinstance(record.processes, int)):
        raise ValueError("has no number of steps or processes")
    return record


def mark_check(said: Mapping[str, Any]) -> str:
    """The checksum of what a mark says, which is in it beside the rest."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def _way_out(path: Path) -> str:
    before = [other.name for other in complete_checkpoints(path.parent) if other.name < path.name]
    return f"remove it to go on from {before[-1]}, or say --resume auto" if before else "there is no earlier one"


def stored(folder: Path) -> dict[str, Stored]:
    """What the files in a folder are, by their names."""
    return {path.name: _stored(path) for path in sorted(folder.iterdir()) if path.is_file()}


def _stored(path: Path) -> Stored:
    with path.open("rb") as file:
        return Stored(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None if every byte is what it was, as far as its mark says.

    Raises RunError for one of a newer opframe.
    """
    try:
        record = _record(path / "mark.json")
    except ValueError as error:
        return f"mark.json {error}"
    for name, expected in record.files.items():
        try:
            found = _stored(path / name)
        except OSError as error:
            return f"{name} cannot be read ({error.strerror or error})"
        if found.bytes != expected.bytes:
            return f"{name} has {found.bytes} bytes instead of {expected.bytes}"
        if found.sha256 != expected.sha256:
            return f"{name} has other bytes than were written"
    return None


def check_sound(path: Path) -> None:
    """Raises RunError where a checkpoint is damaged, with the way out, or of a newer opframe."""
    wrong = damage(path)
    if wrong is not None:
        raise RunError(f"{path} is damaged: {wrong}; {_way_out(path)}")


def set_aside_damaged(folder: Path) -> list[str]:
    """Rename the newest checkpoints while they are damaged, so that a sound one is the newest; says so, in words.

    Raises RunError for one of a newer opframe, which is not damaged.
    """
    said = []
    for path in reversed(complete_checkpoints(folder)):
        wrong = damage(path)
        if wrong is None:
            break
        aside = path.with_name(f"{path.name}.damaged")
        number = 1
        while aside.exists():
            number += 1
            aside = path.with_name(f"{path.name}.damaged-{number}")
        path.rename(aside)
        said.append(f"{path} is damaged: {wrong}; it is kept as {aside.name}, and the one before is used")
    return said


def read_best(folder: Path) -> CheckpointRecord | None:
    """What is known of the checkpoint with the least error while training, if it is still there.

    Where the file that says it is damaged, the checkpoints themselves are asked.
    """
    path = folder / "best.json"
    if not path.exists():
        return None
    try:
        record = _record(path)
    except ValueError:
        return _least(folder)
    return record if checkpoint_path(folder, record.step).exists() else None


def _least(folder: Path) -> CheckpointRecord | None:
    """The checkpoint with the least error, the newest of equal ones."""
    best: CheckpointRecord | None = None
    for path in complete_checkpoints(folder):
        try:
            record = _record(path / "mark.json")
        except ValueError:
            continue
        if record.error is not None and (best is None or best.error is None or record.error <= best.error):
            best = evolve(record, files={})
    return best
