"""A line of JSON for every record."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opframe.files.atomic import write_atomically


class Lines:
    """Appends to a file. After a resume, what lay beyond the checkpoint is dropped, and so is a final report."""

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            write_atomically(path, "".join(f"{line}\n" for line in lines if _is_kept(line, step)))
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


def _is_kept(line: str, step: int) -> bool:
    try:
        record: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:  # the last line of a run that was killed
        return False
    return float(record["step"]) <= step and record["kind"] != "test"
