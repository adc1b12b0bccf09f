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
from opframe.run.job import prepare
from opframe.run.lock import locked
from opframe.run.memory_check import check_batches


def launch_training(
    experiment: Experiment, words: Sequence[str], processes: int, resume: bool, how: str, console: Console
) -> int:
    """Run the command `opframe WORDS` in several processes; returns the exit code of the first of them to fail.

    `experiment` is what they will read, and `how` the command that continues it. Raises OpframeError for what can be
    known before.
    """
    folder = RunFolder(path=Path(experiment.run.folder))
    with locked(folder.path):  # from their start on the leading process holds it
        folder.claim(experiment, resume, how)
    assembly.check_shares(experiment, processes)
    check_batches(experiment, processes)
    prepare(experiment, console)
    assembly.open_sources(experiment)
    sys.stdout.flush()
    return launch(words, processes, console.quiet)
