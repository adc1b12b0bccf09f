"""Everything that a run has saved, as a person sees it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from opframe.weights.checkpoints import (
    Stored,
    checkpoint_path,
    complete_checkpoints,
    damage,
    read_best,
    read_record,
    step_of,
)
from opframe_registry import RunError

_STEP = re.compile(r"step-(\d+)")


@frozen(kw_only=True)
class Summary:
    """A checkpoint as a person sees it: `wrong` says what is damaged or missing, `roles` what it is kept for."""

    name: str
    step: int
    bytes: int
    error: float | None = None
    processes: int | None = None
    wrong: str | None = None
    roles: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return attrs.asdict(self)


def summaries(folder: Path, training: bool = False) -> list[Summary]:
    """Every checkpoint of a folder, oldest first, those that are damaged or were never completed among them.

    All bytes are read. While a run is `training`, one that is not complete is being written.
    """
    complete = complete_checkpoints(folder)
    best = read_best(folder)
    held = {"latest": complete[-1] if complete else None, "best": checkpoint_path(folder, best.step) if best else None}
    unfinished = "being written" if training else "never completed"
    return [_summary(path, int(name[1]), path in complete, held, unfinished) for path, name in _folders(folder)]


def _folders(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    paths = sorted(path for path in folder.glob("step-*") if path.is_dir())
    return [(path, name) for path in paths if (name := _STEP.match(path.name))]


def _summary(path: Path, step: int, complete: bool, held: Mapping[str, Path | None], unfinished: str) -> Summary:
    wrong = _wrong(path) if complete else "damaged, set aside" if ".damaged" in path.name else unfinished
    record = read_record(path) if wrong is None else None
    return Summary(
        name=path.name,
        step=step,
        bytes=_size(path),
        error=record.error if record else None,
        processes=record.processes if record else None,
        wrong=wrong,
        roles=tuple(role for role, holder in held.items() if holder == path),
    )


def summary_of(path: Path, sizes: Mapping[str, int], roles: Mapping[str, bool]) -> Summary:
    """A checkpoint elsewhere, of which the mark is in a folder here, and the sizes of all its files are known."""
    record, wrong = None, "never completed"
    if (path / "mark.json").exists():
        try:
            record = read_record(path)
            wrong = next((said for name, file in record.files.items() if (said := _size_wrong(name, file, sizes))), "")
        except RunError as error:
            wrong = str(error)
    return Summary(
        name=path.name,
        step=step_of(path.name) or 0,
        bytes=sum(sizes.values()),
        error=record.error if record else None,
        processes=record.processes if record else None,
        wrong=wrong or None,
        roles=tuple(role for role, held in roles.items() if held),
    )


def _size_wrong(name: str, expected: Stored, sizes: Mapping[str, int]) -> str:
    if name not in sizes:
        return f"{name} is missing"
    return "" if sizes[name] == expected.bytes else f"{name} has {sizes[name]} bytes instead of {expected.bytes}"


def _size(path: Path) -> int:
    """Bytes of what is there now; a run that lives may be renaming or deleting it."""
    found = 0
    with suppress(OSError):
        for file in path.iterdir():
            found += file.stat().st_size
    return found


def _wrong(path: Path) -> str | None:
    try:
        return damage(path)
    except RunError as error:  # of a newer opframe
        return str(error)
