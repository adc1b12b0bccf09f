"""`opframe checkpoints`: what a run has saved. Everything slow is imported by the command that needs it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from opframe_registry import RunError


def add_checkpoints(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `checkpoints` to the command line."""
    checkpoints = commands.add_parser("checkpoints", help="what a run has saved, and whether every byte is sound")
    checkpoints.add_argument("run", metavar="RUN", help="the run folder, or the place of a copy (run.copy)")
    checkpoints.add_argument(
        "--to", type=Path, metavar="FOLDER", help="bring the newest and the best of a copy into a run folder"
    )
    checkpoints.add_argument("--json", action="store_true", help="as JSON, one list")
    checkpoints.set_defaults(command=_checkpoints)


def _checkpoints(arguments: argparse.Namespace) -> int:
    from opframe.console import bytes_in_words
    from opframe.files.location import is_local, local_path
    from opframe.files.retries import redacted
    from opframe.run.copy import copied, fetch
    from opframe.run.lock import holder, locked
    from opframe.weights.checkpoint_list import summaries

    if arguments.to is not None:
        with locked(arguments.to):
            said = fetch(arguments.run, arguments.to)
        if not said:
            raise RunError(f"{redacted(arguments.run)}: there is no checkpoint that {arguments.to} has not")
        print("\n".join(said))
        return 0
    if is_local(arguments.run):
        run = Path(local_path(arguments.run))
        found = summaries(run / "checkpoints", training=holder(run) is not None)
    else:
        found = copied(arguments.run)
    if not found:
        raise RunError(f"{redacted(arguments.run)}: there is no checkpoint in its folder checkpoints")
    if arguments.json:
        print(json.dumps([each.facts() for each in found], indent=1))
        return 0
    table = Table("step", "error", "size", "processes", "what it is", box=None, pad_edge=False)
    for each in found:
        error = "" if each.error is None else f"{each.error:.4g}"
        words = each.wrong or ", ".join(each.roles) or "complete"
        processes = "" if each.processes is None else str(each.processes)
        table.add_row(str(each.step), error, bytes_in_words(each.bytes), processes, words)
    Console().print(table, highlight=False)
    return 0
