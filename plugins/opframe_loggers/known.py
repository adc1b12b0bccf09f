"""Under which id a service knows a run: kept in the run folder, so that the run goes on under it."""

from __future__ import annotations

import json
from pathlib import Path

from opframe.files.atomic import write_atomically
from opframe_registry import RunError


def read_id(path: Path, place: str) -> str | None:
    """The id of the run at a place of the service, if the file has one. Raises RunError."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get(place)
    except (OSError, ValueError, AttributeError) as error:
        raise RunError(f"{path}: cannot be read ({error}); remove it to begin a new record of the run") from error
    return found if isinstance(found, str) else None


def write_id(path: Path, place: str, id_: str) -> None:
    """Keep the id of the run at a place of the service, beside those at other places."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_atomically(path, json.dumps({**known, place: id_}, indent=1) + "\n")
