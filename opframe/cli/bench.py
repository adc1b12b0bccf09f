"""`opframe bench`. Everything slow is imported by the command that needs it."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from opframe_registry import discover

_WIDTH = 120
"""Characters of a line where there is no terminal."""


def add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `bench` to the command line."""
    bench = commands.add_parser(
        "bench", help="how fast the steps of a run are on this machine, beside what it can do at most"
    )
    bench.add_argument("config", type=Path)
    bench.add_argument(
        "--seconds", type=_positive, default=5.0, help="how long each step is timed, at least (default: 5)"
    )
    bench.add_argument("--json", type=Path, metavar="FILE", help="write exact numbers there")
    bench.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="override, as a.b=c"
    )
    bench.set_defaults(command=_bench)


def _positive(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return seconds


def _bench(arguments: argparse.Namespace) -> int:
    catalog, console = discover(), Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    from opframe.bench.machine import ceilings, description
    from opframe.bench.report import Findings
    from opframe.bench.steps import measure_rows
    from opframe.run.distributed import joined
    from opframe.run.experiment import load_experiment
    from opframe.run.job import prepare

    experiment = load_experiment(arguments.config, catalog, arguments.overrides)
    with joined(experiment.trainer) as processes:
        prepare(experiment, console)
        product, copy = ceilings(processes.device, experiment.trainer.precision)
        rows = []
        for row in measure_rows(experiment, processes, arguments.seconds):
            console.print(f"{row.name} …", highlight=False)
            rows.append(row)
        findings = Findings(
            title=f"{experiment.backbone.name}, batch {experiment.data.batch_size}, {experiment.trainer.precision}",
            environment=description(processes.device),
            product=product,
            copy=copy,
            rows=rows,
        )
    for table in findings.tables(console):
        console.print(table)
    console.print(findings.ceilings(), highlight=False)
    console.print(findings.verdict(), highlight=False)
    if arguments.json:
        arguments.json.write_text(findings.to_json(), encoding="utf-8")
    return 0
