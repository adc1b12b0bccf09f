"""`opframe data check` by several machines: what each found, in a file, and all of it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from opframe.console import Bar
from opframe.files.shards import Shard, all_left, forget_all
from opframe.files.stamps import stamps
from opframe.mixture.moments import Moments
from opframe.tools.audit import Audit, Course, Finding, look, tasks_of, together
from opframe.tools.packed import digest
from opframe.tools.selection import Part
from opframe.tools.work import Pool
from opframe_registry import DataError

NAME = "check.json"


def look_at_share(parts: Sequence[Part], shard: Shard, folder: Path, pool: Pool | None, bar: Bar) -> None:
    """Look at a part of the trajectories, unless that is done. Raises DataError where the folder cannot be written."""
    path, of = folder / NAME, _identity(parts)
    if shard.left(path, of) is not None:
        return
    audits = look(parts, shard.share(tasks_of(parts)), pool, bar)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shard.leave(path, of, {str(place): _record(found) for place, found in enumerate(audits)})
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error})") from error


def merged(parts: Sequence[Part], folder: Path) -> list[Audit]:
    """The audit of which shards have left all parts. Raises DataError naming those that are missing."""
    path = folder / NAME
    audits = [Audit(part=part) for part in parts]
    for left in all_left(path, _identity(parts)):
        for place, audit in enumerate(audits):
            _add(audit, left[str(place)])
    return together(audits)


def forget(folder: Path) -> None:
    """Remove what shards have left."""
    forget_all(folder / NAME)


def _identity(parts: Sequence[Part]) -> str:
    """Changes with the data that are looked at, and with what is looked at of them."""
    known = [(part, part.component.identity(stamps, (part.split,))) for part in parts]
    return digest([[part.title, part.split, each.settings, each.files, part.excluded] for part, each in known])


def _record(found: Audit) -> dict[str, Any]:
    return {
        "looked_at": found.looked_at,
        "findings": [attrs.asdict(finding) for finding in found.findings],
        "course": found.course and {name: getattr(found.course, name).record() for name in ("whole", "first", "last")},
        "digests": [[number, first and first.hex(), whole.hex()] for number, first, whole in found.digests],
        "farthest": found.farthest,
    }


def _add(audit: Audit, record: Mapping[str, Any]) -> None:
    """Take note of what a shard found."""
    audit.looked_at += record["looked_at"]
    audit.findings += [Finding(**finding) for finding in record["findings"]]
    audit.digests += [
        (n, first and bytes.fromhex(first), bytes.fromhex(whole)) for n, first, whole in record["digests"]
    ]
    audit.farthest += [(number, distance) for number, distance in record["farthest"]]
    if record["course"] is not None:
        course = Course(**{name: Moments.of(numbers) for name, numbers in record["course"].items()})
        audit.course = course if audit.course is None else audit.course + course
