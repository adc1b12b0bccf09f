"""Everything that a run has saved, as a person sees it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from opframe.weights.checkpoints import CheckpointRecord, complete_checkpoints, damage, read_best, read_record


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


def summaries(folder: Path) -> list[Summary]:
    """Every checkpoint of a folder, oldest first, those that are damaged or were never completed among them.

    All bytes are read.
    """
    complete = complete_checkpoints(folder)
    best = read_best(folder)
    found = []
    for path in sorted(path for path in folder.glob("step-*") if path.is_dir()):
        wrong = damage(path) if path in complete else _incomplete(path)
        record = None if path not in complete or wrong is not None else read_record(path)
        roles = [word for word, holds in (("latest", path in complete[-1:]), ("best", _is_of(best, path))) if holds]
        digits = re.match(r"step-(\d+)", path.name)
        summary = Summary(
            name=path.name,
            step=int(digits[1]) if digits else -1,
            bytes=sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
            error=record.error if record else None,
            processes=record.processes if record else None,
            wrong=wrong,
            roles=tuple(roles),
        )
        found.append(summary)
    return found


def _incomplete(path: Path) -> str:
    return "damaged, set aside" if ".damaged" in path.name else "never completed"


def _is_of(best: CheckpointRecord | None, path: Path) -> bool:
    return best is not None and path.name == f"step-{best.step:08d}"
