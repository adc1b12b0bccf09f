"""Stopping when evaluations no longer find training better."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from opframe_registry import Training


class Patience:
    """Counts evaluations since the best one. An error that is not a number is not better than any."""

    def __init__(self, patience: int, min_delta: float) -> None:
        self._patience, self._min_delta = patience, min_delta
        self._best, self._waited = inf, 0

    def after_evaluation(self, training: Training, scores: Mapping[str, float]) -> None:
        """Stop after `patience` evaluations whose error was not less than the least one by more than `min_delta`."""
        error = scores["selected"]
        if error < self._best - self._min_delta:
            self._best, self._waited = error, 0
            return
        self._waited += 1
        if self._waited >= self._patience:
            several = f"{self._waited} evaluations" if self._waited > 1 else "the last evaluation"
            training.stop(f"{several} found nothing better than {self._best:.4g} (early_stopping)")

    def state_dict(self) -> dict[str, Any]:
        """The least error so far, and for how many evaluations there was none that is less."""
        return {"best": self._best, "waited": self._waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting."""
        self._best, self._waited = float(state["best"]), int(state["waited"])
