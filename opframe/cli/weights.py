"""`opframe weights`: import, export and show. Everything slow is imported by the command that needs it."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from opframe_registry import discover


def add_weights(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `weights` and what it can do to the command line."""
    weights = commands.add_parser("weights", help="import, export and look at trained weights")
    weights.set_defaults(group=weights)
    actions = weights.add_subparsers(metavar="ACTION")
    bring = actions.add_parser("import", help="make a weights folder of a published checkpoint")
    bring.add_argument("file", metavar="FILE", help="path or URL of a file that torch.save wrote")
    bring.add_argument("out", type=_new_folder, metavar="OUT", help="the new folder")
    bring.add_argument(
        "--fill",
        dest="fills",
        action="append",
        default=[],
        metavar="PATTERN=VALUE",
        help="set tensors that the file does not hold, as '*.temperature=2.0'",
    )
    bring.add_argument("--channels", default="", metavar="NAMES", help="names of the channels, as u,v,p")
    bring.set_defaults(command=_import)
    export = actions.add_parser("export", help="make a weights folder of a run")
    export.add_argument("run", metavar="RUN", help="the run folder")
    export.add_argument("out", type=_new_folder, metavar="OUT", help="the new folder")
    export.add_argument(
        "--checkpoint",
        default="latest",
        metavar="WHICH",
        help="latest (default), the number of a step, or best: selected by its error on validation data",
    )
    export.set_defaults(command=_export)
    show = actions.add_parser("show", help="what weights are there")
    show.add_argument("where", metavar="WHERE", help="weights folder, its URL, a Hugging Face repository, or a run")
    show.set_defaults(command=_show)


def _new_folder(text: str) -> Path:
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is no local path; write a local folder, and upload it as it is")
    return Path(text)


def _import(arguments: argparse.Namespace) -> int:
    from opframe.weights.convert import ImportOptions, import_file

    channels = tuple(name.strip() for name in arguments.channels.split(",") if name.strip())
    options = ImportOptions(fills=tuple(arguments.fills), channels=channels)
    report = import_file(arguments.file, arguments.out, options, discover())
    _print([*report, f"written: {arguments.out}"])
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from opframe.weights.convert import export_run

    report = export_run(arguments.run, arguments.out, discover(), arguments.checkpoint)
    _print([*report, f"written: {arguments.out}"])
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from opframe.weights.pretrained import read_pretrained
    from opframe.weights.summary import describe

    _print(describe(read_pretrained(arguments.where, discover())))
    return 0


def _print(lines: list[str]) -> None:
    console = Console()
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
