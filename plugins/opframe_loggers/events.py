"""TensorBoard events."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import image as image_summary
from torch.utils.tensorboard.summary import scalar


class Events:
    """Writes a file of events, which takes the place of what earlier ones have beyond `step`.

    Everything is written at once and by the one who says it, so that nothing is lost where a run is killed, and who has
    said it hears of a full disk. TensorBoard's own writer leaves both to a thread.
    """

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = _fresh(folder).open("xb")
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        self._write(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        self._file.flush()

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """One scalar for each number, as `kind/name`."""
        for name, value in values.items():
            self._write(step=step, summary=scalar(f"{kind}/{name}", value))  # type: ignore[no-untyped-call]
        self._file.flush()

    def image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """One picture."""
        summary = image_summary(name, image, dataformats="HWC")  # type: ignore[no-untyped-call]
        self._write(step=step, summary=summary)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, **parts: Any) -> None:
        self._records.write(Event(wall_time=time.time(), **parts).SerializeToString())


def _fresh(folder: Path) -> Path:
    """A name that no other file of events has, as TensorBoard expects it."""
    begun = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
    return folder / f"{begun}.{sum(path.name.startswith(begun) for path in folder.iterdir())}"
