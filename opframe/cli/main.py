"""The command line. Everything slow is imported by the command that needs it."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console

from opframe import __version__
from opframe.cli.bench import add_bench
from opframe.cli.checkpoints import add_checkpoints
from opframe.cli.components import add_components
from opframe.cli.data import add_data, positive
from opframe.cli.status import add_status
from opframe.cli.weights import add_weights
from opframe.signals import Interrupted, exit_code, obeyed
from opframe_registry import Catalog, ConfigError, OpframeError, did_you_mean, discover

if TYPE_CHECKING:
    from opframe.config.settings import Experiment

MISTAKE = 2
"""Exit code for what the person can mend."""


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 2 a mistake, 130 interrupted by Ctrl-C, 143 by SIGTERM, 128 + its number
    by another signal that asks for the end.

    A callback that interrupts training, as where the time is over, has the exit code of SIGTERM.

    `words` are what a person wrote after `opframe`: those of this process where none are given. With the environment
    variable OPFRAME_TRACEBACK a mistake comes with its traceback, for those who write plugins.
    """
    try:
        arguments = _parser().parse_args(_joined(sys.argv[1:] if words is None else words))
        if arguments.command is None:  # a group of commands, of which none was named
            arguments.group.print_help()
            sys.exit(0)
        with obeyed():
            code = arguments.command(arguments)
        sys.exit(code)
    except OpframeError as error:
        if os.environ.get("OPFRAME_TRACEBACK"):
            raise
        from opframe.files.retries import redacted

        print(f"error: {redacted(str(error))}", file=sys.stderr)
        sys.exit(MISTAKE)
    except Interrupted as error:  # it has said so
        sys.exit(error.code)
    except KeyboardInterrupt:  # before there was anything to do
        print(Interrupted(signal.SIGINT), file=sys.stderr)
        sys.exit(exit_code(signal.SIGINT))
    except BrokenPipeError:  # whoever read our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _joined(words: Sequence[str]) -> list[str]:
    """`--resume auto` as one word, since `--resume` may stand before the config without it."""
    joined: list[str] = []
    for word in words:
        if word == "auto" and joined[-1:] == ["--resume"]:
            joined[-1] = "--resume-auto"
        else:
            joined.append(word)
    return joined


def _count(word: str) -> int:
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"'{word}' is not a whole number from 0 on")
    return int(word)


class Parser(argparse.ArgumentParser):
    """A parser that suggests the nearest of the words that it knows."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = list(map(str, action.choices))
            message = f"unknown: '{value}'{did_you_mean(str(value), known)}; there are {', '.join(known)}"
            raise argparse.ArgumentError(action, message)


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = Parser(prog="opframe", description="Pre-train neural operators from a TOML file.")
    parser.add_argument("--version", action="version", version=f"opframe {__version__}")
    parser.set_defaults(command=None, group=parser)
    commands = parser.add_subparsers(metavar="COMMAND")
    run = commands.add_parser("run", help="train, evaluate and report what a config describes")
    run.add_argument("config", type=Path)
    run.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in the run folder, if there is one, from the newest checkpoint; with 'auto' after it, "
        "from the newest that is not damaged",
    )
    run.add_argument("--resume-auto", dest="resume", action="store_const", const="auto", help=argparse.SUPPRESS)
    run.add_argument("--nproc", type=positive, default=1, metavar="N", help="train with N processes on this machine")
    run.add_argument(
        "--restarts", type=_count, default=0, metavar="K", help="with --nproc: begin again up to K times where one dies"
    )
    run.add_argument("--stop-at", type=positive, metavar="STEP", help="stop after this step, saved, to be resumed")
    evaluate = commands.add_parser("evaluate", help="evaluate trained weights (init.from) on a config's data")
    evaluate.add_argument("config", type=Path)
    check = commands.add_parser("check", help="say what is wrong with a config, or what it would do")
    check.add_argument("config", type=Path)
    for command in (run, evaluate, check):
        command.add_argument(
            "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="override, as a.b=c"
        )
    compare = commands.add_parser("compare", help="finished runs beside each other")
    compare.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    compare.add_argument(
        "--by", metavar="KEY", help="a key of their configs to set errors against, as datasets.0.train"
    )
    compare.add_argument("--out", type=Path, metavar="FOLDER", help="write the tables, and with --by a figure, there")
    compare.set_defaults(command=_compare)
    run.set_defaults(command=_run)
    evaluate.set_defaults(command=_evaluate, nproc=1)
    check.set_defaults(command=_check)
    add_components(commands)
    add_status(commands)
    add_checkpoints(commands)
    add_bench(commands)
    add_data(commands)
    add_weights(commands)
    return parser


def _check(arguments: argparse.Namespace) -> int:
    from opframe.run.check import check

    catalog = discover()
    check(_load(arguments, catalog), catalog, Console())
    return 0


def _load(arguments: argparse.Namespace, catalog: Catalog) -> Experiment:
    from opframe.run.experiment import load_experiment

    return load_experiment(arguments.config, catalog, arguments.overrides)


def _run(arguments: argparse.Namespace) -> int:
    catalog = discover()
    experiment = _load(arguments, catalog)
    how = _how_to_continue(arguments)
    if arguments.nproc > 1 and "WORLD_SIZE" not in os.environ:
        from opframe.run.launching import launch_training, resume_words

        words = ["run", str(arguments.config), *_overrides(arguments), *resume_words(arguments.resume)]
        words += ["--stop-at", str(arguments.stop_at)] if arguments.stop_at is not None else []
        return launch_training(
            experiment, words, arguments.nproc, arguments.resume, how, Console(), restarts=arguments.restarts
        )
    if arguments.restarts:
        raise ConfigError("--restarts is for several processes, as --nproc starts them; give --nproc too")
    from opframe.api import train

    done = train(experiment, resume=arguments.resume, stop_at=arguments.stop_at, how_to_continue=how, catalog=catalog)
    if done.interrupted and os.environ.get("RANK", "0") == "0":
        where = f"at step {done.step}, saved" if done.step else "before the first step"
        why = f" ({done.interruption})" if done.interruption else ""
        said = f"stopped {where}{why}; continue with: {how}"
        Console().print(said, markup=False, highlight=False, soft_wrap=True)
    return exit_code(done.signal) if done.signal is not None else 0


def _evaluate(arguments: argparse.Namespace) -> int:
    catalog = discover()
    experiment = _load(arguments, catalog)
    from opframe.api import evaluate

    how = _how_to_continue(arguments)
    evaluate(_weights_of(experiment), experiment, how_to_continue=how, catalog=catalog)
    return 0


def _weights_of(experiment: Experiment) -> str:
    """The weights that an experiment begins with. Raises ConfigError where there are none to evaluate."""
    if experiment.init is None:
        raise ConfigError(
            "there are no weights to evaluate; name a weights folder or a run folder as init.from, "
            "as in --set init.from=runs/dpot_pretrain"
        )
    return experiment.init.from_


def _compare(arguments: argparse.Namespace) -> int:
    from opframe.api import compare

    console = Console()
    compared = compare(arguments.runs, by=arguments.by)
    compared.show(console)
    if arguments.out is not None:
        compared.write(arguments.out)
        console.print(f"written to {arguments.out}", highlight=False, soft_wrap=True)
    return 0


def _how_to_continue(arguments: argparse.Namespace) -> str:
    processes = os.environ.get("LOCAL_WORLD_SIZE", str(arguments.nproc))
    words = ["opframe", "run", str(arguments.config), "--resume"]
    return shlex.join([*words, *(["--nproc", processes] if processes != "1" else []), *_overrides(arguments)])


def _overrides(arguments: argparse.Namespace) -> list[str]:
    return [word for override in arguments.overrides for word in ("--set", override)]
