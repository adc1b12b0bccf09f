"""A line of JSON for every record."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opframe.console import counted
from opframe.files.atomic import write_atomically

_log = logging.getLogger(__name__)


class Lines:
    """Appends to a file. After a resume, what lay beyond the checkpoint is dropped, and so is a final report."""

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            records = [(line, _record(line)) for line in path.read_bytes().splitlines()]
            damaged = sum(record is None for _, record in records[:-1])  # the last one is that of a run that was killed
            if damaged:
                _log.warning("%s: %s could not be read, and dropped", path, counted(damaged, "line"))
            kept = [line.decode() for line, record in records if record is not None and _is_kept(record, step)]
            write_atomically(path, "".join(f"{line}\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Write one line, whole and at once."""
        record = {"step": step, "kind": kind, "time": round(time.time(), 3)}
        safe = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({**record, **safe}) + "\n")
        self._file.flush()

    def image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """Nothing: a line has no room for a picture."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _record(line: bytes) -> dict[str, Any] | None:
    """What a line says; None where it is torn or damaged."""
    try:
        record = json.loads(line.decode())
        return {**record, "step": float(record["step"]), "kind": str(record["kind"])}
    except (ValueError, KeyError, TypeError):
        return None


def _is_kept(record: Mapping[str, Any], step: int) -> bool:
    return bool(record["step"] <= step) and record["kind"] != "test"
