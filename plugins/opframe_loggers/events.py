"""TensorBoard events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter


class Events:
    """Writes a file of events, which takes the place of what earlier ones have beyond `step`."""

    def __init__(self, folder: Path, step: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """One scalar for each number, as `kind/name`."""
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)

    def image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """One picture."""
        self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is waiting."""
        self._writer.close()
