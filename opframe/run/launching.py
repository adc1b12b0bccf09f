"""Training in several processes of this machine: what is wrong is said before they start, once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from opframe.config.settings import Experiment
from opframe.run import assembly
from opframe.run.distributed import launch
from opframe.run.folder import RunFolder
from opframe.run.job import Resume, prepare
from opframe.run.lock import locked
from opframe.run.memory_check import check_batches
from opframe.run.sharing import shard_size
from opframe.signals import SIGNALS, exit_code
from opframe.weights.checkpoints import set_aside_damaged

_MEANT = {0, 2, *map(exit_code, SIGNALS)}
"""Exit codes after which nothing begins again: done, a mistake, and a run that was asked to end."""


def launch_training(
    experiment: Experiment,
    words: Sequence[str],
    processes: int,
    resume: Resume,
    how: str,
    console: Console,
    restarts: int = 0,
) -> int:
    """Run the command `opframe WORDS` in several processes; returns the exit code of the first of them to fail.

    `experiment` is what they will read, and `how` the command that continues it. Where one of them dies, all begin
    again from the last sound checkpoint, up to `restarts` times; not after a mistake, nor a signal that asks for the
    end. Raises OpframeError for what can be known before.
    """
    folder = RunFolder(path=Path(experiment.run.folder))
    with locked(folder.path):  # from their start on the leading process holds it
        if resume == "auto":
            for line in set_aside_damaged(folder.checkpoints):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        folder.claim(experiment, bool(resume), how)
    assembly.check_shares(experiment, processes)
    shard_size(experiment.parallel, processes)
    check_batches(experiment, processes)
    prepare(experiment, console)
    assembly.open_sources(experiment)
    sys.stdout.flush()
    code = launch(words, processes, console.quiet)
    for attempt in range(1, restarts + 1):
        if code in _MEANT:
            break
        said = (
            f"a process ended with exit code {code}; all begin again from the last checkpoint ({attempt} of {restarts})"
        )
        console.print(said, markup=False, highlight=False, soft_wrap=True)
        sys.stdout.flush()
        code = launch([*words, *resume_words("auto")], processes, console.quiet)
    return code


def resume_words(resume: Resume) -> list[str]:
    """How a command line says whether a run that is there goes on."""
    return ["--resume", *(["auto"] if resume == "auto" else [])] if resume else []
