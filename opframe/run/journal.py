"""The run's record of numbers: JSON lines, and TensorBoard events."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from opframe.files.atomic import write_atomically


class Journal:
    """Appends to `metrics.jsonl` and `events/`. After a resume, what lay beyond the checkpoint is dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / "metrics.jsonl"
        _keep_until(self._path, step)
        self._lines = self._path.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(folder / "events"), purge_step=step + 1)

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Record named numbers of one step; `kind` is train or evaluation."""
        record = {"step": step, "kind": kind, "time": round(time.time(), 3)}
        safe = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._lines.write(json.dumps({**record, **safe}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._events.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush and close both files."""
        self._lines.close()
        self._events.close()


def _keep_until(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
    write_atomically(path, "".join(f"{line}\n" for line in kept))


def _step(line: str) -> float:
    try:
        record: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:  # the last line of a run that was killed
        return math.inf
    return float(record["step"])
