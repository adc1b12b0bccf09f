"""Leaving out bad steps, and going back to a checkpoint where there are too many."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from opframe_registry import RunError, Training

_ENOUGH = 10
"""Steps from which a median says something."""


class Judge:
    """Judges every step by its loss and gradient beside those of the steps before."""

    def __init__(self, factor: float, window: int, patience: int, rollbacks: int) -> None:
        self._factor, self._window, self._patience, self._rollbacks = factor, window, patience, rollbacks
        self._seen: dict[str, list[float]] = {"loss": [], "gradient norm": []}
        self._bad = 0
        self._buffers: list[Tensor] = []

    def before_step(self, training: Training) -> None:
        """Keep what a forward pass changes, as batch statistics, which a bad one would spoil."""
        self._buffers = [buffer.clone() for buffer in training.backbone.buffers()]

    def after_backward(self, training: Training) -> None:
        """Leave the step out if it is bad."""
        loss = torch.stack([value.float() for value in training.losses.values()]).sum()
        found = {"loss": float(training.mean(loss)), "gradient norm": _norm(training)}
        reasons = [words for name, value in found.items() if (words := self._wrong(name, value))]
        if not reasons:
            self._bad = 0
            for name, value in found.items():
                self._seen[name] = [*self._seen[name], value][-self._window :]
            return
        self._bad += 1
        for buffer, kept in zip(training.backbone.buffers(), self._buffers, strict=True):
            buffer.copy_(kept)
        training.skip(" and ".join(reasons))

    def after_step(self, training: Training) -> None:
        """Go back after too many bad steps in a row. Raises RunError where that was done often enough."""
        if self._bad < self._patience:
            return
        several = f"{self._bad} steps in a row were left out" if self._bad > 1 else "the step was left out"
        if training.rollbacks >= self._rollbacks:
            times = "once" if self._rollbacks == 1 else f"{self._rollbacks} times"
            again = f"; training had gone back {times} before (rescue)" if self._rollbacks else ""
            where = "left_out.jsonl in the run folder has the windows of their batches"
            way_out = "leave out data that are wrong, or lower optimizer.learning_rate"
            raise RunError(f"training diverged by step {training.step}: {several}{again}; {where}; {way_out}")
        training.roll_back(f"{several} (rescue)")

    def state_dict(self) -> dict[str, Any]:
        """What the medians are of, and how many steps in a row were bad."""
        return {"seen": self._seen, "bad": self._bad}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on judging."""
        self._seen = {name: [float(value) for value in values] for name, values in state["seen"].items()}
        self._bad = int(state["bad"])

    def _wrong(self, name: str, value: float) -> str:
        if not isfinite(value):
            return f"{name} {value}"
        seen = self._seen[name]
        usual = median(seen) if len(seen) >= _ENOUGH else value
        return f"{name} {value:.3g}, {value / usual:.0f} times its median" if value > self._factor * usual else ""


def _norm(training: Training) -> float:
    """The norm of the whole gradient."""
    norm = get_total_norm([weight.grad for weight in training.backbone.parameters() if weight.grad is not None])
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
