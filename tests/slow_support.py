"""Runs of which a phase takes long, so that something can be done to them meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

SLOW = Path(__file__).parent / "slow_phase"


@frozen(kw_only=True)
class Phase:
    """A function that takes long after some calls, what it does then, and how much is saved when it is interrupted."""

    slow: str
    how: str = "asleep"
    after: int = 0
    options: tuple[str, ...] = ()
    step: int | None = None


def start(experiment: Path, phase: Phase, *words: str, torchrun: Sequence[str] = ()) -> subprocess.Popen[str]:
    """A run, or another command, of which a phase takes a minute; started by torchrun where it has words of its own."""
    settings = [word for option in phase.options for word in ("--set", option)]
    slow = {
        "SLOW": phase.slow,
        "HOW": phase.how,
        "AFTER": str(phase.after),
        "REACHED": str(experiment.parent / "reached"),
        "PYTHONPATH": str(SLOW),
        "OMP_NUM_THREADS": "1",
    }
    launcher = ["-m", "torch.distributed.run", *torchrun] if torchrun else []
    command = [sys.executable, *launcher, "-m", "opframe", *(words or ("run",)), str(experiment), *settings]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, **slow}, start_new_session=True, **streams)


def wait_until_reached(experiment: Path, process: subprocess.Popen[str], ranks: int = 1) -> None:
    deadline = time.monotonic() + 120
    while not all((experiment.parent / f"reached.{rank}").exists() for rank in range(ranks)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)
