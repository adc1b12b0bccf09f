"""Steps that are left out, and going back to a checkpoint, as callbacks ask for it; what was in the batch is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from attrs import frozen

from opframe.mixture.loading import Plan, Windows

NAME = "left_out.jsonl"


def order_seed(seed: int, rollbacks: int) -> int:
    """The seed of the order of the data, and of noise, after so many returns to a checkpoint."""
    if rollbacks == 0:
        return seed
    return int(np.random.SeedSequence([seed, rollbacks]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@frozen(kw_only=True)
class Setbacks:
    """Where a person finds what was left out: a line in the run folder for each step."""

    path: Path
    say: Callable[[str], None]
    read: Callable[[int], list[list[str | int]]]
    """The dataset, trajectory and first frame of every window of a global batch, by the datasets' own numbers."""

    def left_out(self, step: int, reason: str) -> None:
        """Write down a step that changed no weight."""
        windows = self.read(step)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step + 1, "why": reason, "windows": windows}) + "\n")
        self.say(f"step {step + 1} left out: {reason}; what was in its batch is in {self.path}")


def windows_of(windows: Windows, plan: Plan, step: int) -> list[list[str | int]]:
    """What all processes read in a step, as `Setbacks.read` has it."""
    found: list[list[str | int]] = []
    for each in plan.order(plan.seed, step, plan.batch_size):
        source = windows.sources[each.dataset]
        found.append([source.title, source.number(each.trajectory), each.start * source.stride])
    return found
