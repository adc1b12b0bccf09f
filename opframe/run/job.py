"""One run from its experiment to its report."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from signal import Signals
from typing import Literal

from attrs import evolve, frozen
from rich.console import Console
from torch import nn

from opframe.config import building
from opframe.config.settings import Experiment, components_of
from opframe.console import Preparation, say
from opframe.evaluation.protocol import Evaluator
from opframe.evaluation.report import draw_all, make_tables, measured_on, verdict, write_report
from opframe.evaluation.scores import Report
from opframe.files.atomic import write_atomically
from opframe.files.cache import patient
from opframe.mixture.overlap import Overlap
from opframe.mixture.source import left_out
from opframe.mixture.validation import in_words
from opframe.processes import Processes
from opframe.run import assembly, overlaps
from opframe.run.copy import check_place, end_copy, fetch
from opframe.run.course import Course
from opframe.run.distributed import joined
from opframe.run.ending import Outcome
from opframe.run.evaluating import make_evaluator
from opframe.run.facts import end_in_words, facts_of, plan_in_words, size_in_words, unselected
from opframe.run.folder import RunFolder, writable
from opframe.run.lock import held_by_leader
from opframe.run.loggers import Loggers, log_figures, open_loggers
from opframe.run.memory_check import check_batches, check_memory, explained
from opframe.run.same_data import data_in_words, remember
from opframe.run.sharing import is_shared, whole_weights
from opframe.run.status import end_noted, note_interruption
from opframe.weights.checkpoints import latest_step, set_aside_damaged
from opframe_registry import Catalog, ConfigError, seconds

Resume = bool | Literal["auto"]
"""Whether a run that is there goes on; `auto`: with damaged checkpoints set aside."""


@frozen(kw_only=True)
class Request:
    """What the person asked for."""

    experiment: Experiment
    catalog: Catalog
    resume: Resume
    stop_at: int | None
    how_to_continue: str


def run(request: Request, console: Console) -> Outcome:
    """Prepare, train, evaluate and report. Raises OpframeError for what the person can mend."""
    experiment = request.experiment
    folder = RunFolder(path=Path(experiment.run.folder))
    with _surroundings(experiment, folder) as processes:
        copied = experiment.run.copy
        if request.resume and copied is not None:
            for line in processes.let_leader(lambda: fetch(copied, folder.path, experiment)):
                _say_once(line, processes, console)
        if request.resume == "auto":
            lines = processes.let_leader(lambda: set_aside_damaged(folder.checkpoints))
            for line in lines:
                _say_once(line, processes, console)
        folder.claim(experiment, bool(request.resume), request.how_to_continue)
        with end_noted(folder.path):
            processes.wait()
            outcome = _prepare_and_train(request, folder, processes, console)
        if copied is not None and processes.leads:
            end_copy(copied, folder.path, partial(say, console))
        if outcome.interrupted and processes.leads:
            why = outcome.interruption or (
                f"by {Signals(outcome.signal).name}" if outcome.signal else "as was asked for"
            )
            note_interruption(folder.path, f"stopped at step {outcome.step}, saved ({why})")
        gc.collect()  # the distributed model must be gone before the process group is
    return outcome


def _say_once(line: str, processes: Processes, console: Console) -> None:
    if processes.leads:
        say(console, line)


@contextmanager
def _surroundings(experiment: Experiment, folder: RunFolder) -> Iterator[Processes]:
    """The processes that train together, the run folder in their hands, and errors in words."""
    with ExitStack() as stack:
        processes = stack.enter_context(joined(experiment.trainer))
        stack.enter_context(explained())
        stack.enter_context(writable(folder))
        stack.enter_context(held_by_leader(folder.path, processes))
        stack.enter_context(patient(seconds(experiment.data.patience)))
        yield processes


def _prepare_and_train(request: Request, folder: RunFolder, processes: Processes, console: Console) -> Outcome:
    if processes.leads:
        check_batches(request.experiment, processes.count)
        prepare(request.experiment, console)
    processes.wait_for_leader()
    return _train_and_report(request, folder, processes, console)


def prepare(experiment: Experiment, console: Console) -> None:
    """Let the datasets make what they need, with a bar for each. Raises DataError."""
    with Preparation(console) as progress:
        assembly.prepare_data(experiment, progress)


def _validation_overlaps(
    experiment: Experiment, sources: assembly.Sources, processes: Processes, console: Console
) -> list[Overlap]:
    """Which validation data are trained on, said and, for the report of the leading process, given."""
    if not (processes.leads and experiment.evaluation.overlap):
        return []
    with Preparation(console) as progress:
        found = overlaps.with_validation(experiment, sources, progress)
    overlaps.say(found, console)
    return found


def _evaluated(
    experiment: Experiment, sources: assembly.Sources, processes: Processes, console: Console
) -> tuple[assembly.Sources, list[Overlap]]:
    """The test and zero-shot data as the report needs them, and what of them was used before.

    Nothing is read of them earlier: they are opened before training, which tells whether they fit.
    """
    found: list[Overlap] = []
    if processes.leads:
        with Preparation(console) as progress:
            assembly.prepare_zero_shot(experiment, sources, progress)
            if experiment.evaluation.overlap:
                found = overlaps.with_test(experiment, sources, progress)
    processes.wait_for_leader()
    return assembly.normalised_zero_shot(experiment, sources), found


def _train_and_report(request: Request, folder: RunFolder, processes: Processes, console: Console) -> Outcome:
    experiment = request.experiment
    started = time.monotonic()
    sources = assembly.open_sources(experiment)
    check_memory(experiment, sources, processes)
    processes.wait()
    found = _validation_overlaps(experiment, sources, processes, console)
    processes.wait_for_leader()
    evaluator = make_evaluator(experiment, sources, request.catalog, processes)
    validation = _validator(evaluator, sources)
    backbone = _begin(request, folder, sources, processes, console)
    if processes.leads:
        said = (in_words(sources.train, sources.validation), unselected(experiment, bool(sources.validation)))
        evaluated = (*sources.validation, *sources.test, *sources.zero_shot)
        for line in chain(left_out(sources.train, evaluated), *said):
            console.print(line, highlight=False, soft_wrap=True)
        console.print(", ".join([*plan_in_words(experiment, backbone), f"on {processes.device}"]), highlight=False)
    with closing(_loggers(experiment, folder, processes, console)) as loggers:
        with _blamed(experiment, backbone, evaluator):
            outcome = Course(
                experiment=experiment,
                catalog=request.catalog,
                folder=folder,
                sources=sources,
                backbone=backbone,
                evaluator=evaluator,
                validation=validation,
                loggers=loggers,
                console=console,
                stop_at=request.stop_at,
            ).train()
        if not outcome.interrupted:
            when = f"{time.monotonic() - started:.0f} s since the run began or was resumed"
            end = end_in_words(folder.checkpoints, outcome.step, outcome.stopped)
            done = [*plan_in_words(experiment, backbone), *end, *outcome.said]
            facts = facts_of(experiment, processes, done, when)
            with whole_weights(backbone):
                scores = validation.evaluate(backbone) if validation else None
                sources, others = _evaluated(experiment, sources, processes, console)
                evaluator = evolve(evaluator, sources=sources.test, zero_shot=sources.zero_shot)
                report = _report(experiment, folder, evaluator, backbone, facts, [*found, *others], console, scores)
            outcome = evolve(outcome, report=report)
            loggers.log(outcome.step, "test", report.numbers())
            if experiment.evaluation.figures:
                log_figures(loggers, outcome.step, folder.path / "figures")
    return outcome


def _loggers(experiment: Experiment, folder: RunFolder, processes: Processes, console: Console) -> Loggers:
    """The loggers of the run, which go on from its latest checkpoint. Raises RunError or PluginError."""
    if not processes.leads:
        return Loggers()
    return open_loggers(experiment, latest_step(folder.checkpoints) or 0, partial(say, console))


def evaluate(request: Request, console: Console) -> Report:
    """Evaluate the weights that the experiment begins with, without training. Raises OpframeError."""
    experiment = request.experiment
    assert experiment.init is not None, "who asks for an evaluation names the weights"
    if experiment.init.normalization is not None:
        raise ConfigError(
            "init.normalization = 'changed' is for training, which can make up for it; what is evaluated has to be "
            "normalised as the weights were trained: leave the key out"
        )
    folder = RunFolder(path=Path(experiment.run.folder))
    with _surroundings(experiment, folder) as processes:
        folder.claim(experiment, bool(request.resume), request.how_to_continue)
        prepare(experiment, console)
        sources = assembly.open_sources(experiment)
        check_memory(experiment, sources, processes, training=False)
        evaluator = make_evaluator(experiment, sources, request.catalog, processes)
        backbone = _begin(request, folder, sources, processes, console, training=False)
        facts = facts_of(experiment, processes, [size_in_words(experiment, backbone)], "evaluated without training")
        sources, found = _evaluated(experiment, sources, processes, console)
        evaluator = evolve(evaluator, sources=sources.test, zero_shot=sources.zero_shot)
        return _report(experiment, folder, evaluator, backbone, facts, found, console)


def _begin(
    request: Request,
    folder: RunFolder,
    sources: assembly.Sources,
    processes: Processes,
    console: Console,
    training: bool = True,
) -> nn.Module:
    """The network as training begins, and a run folder that says what it is."""
    experiment = request.experiment
    backbone = assembly.build_backbone(experiment, sources.fields)
    resumed = latest_step(folder.checkpoints) is not None
    if resumed:
        folder.check_numbers(sources, request.catalog)
    transferred = None if resumed else assembly.initialise(experiment, backbone, sources, request.catalog)
    lines = processes.let_leader(lambda: data_in_words(folder.path, experiment, sources) if resumed else [])
    if processes.leads:
        for line in lines:
            say(console, line)
        folder.describe(experiment, sources, request.catalog, processes.device, processes.count)
        console.print(f"run folder: {folder.path}", highlight=False, soft_wrap=True)
        for line in transferred.summary() if transferred else ():
            console.print(line, highlight=False, soft_wrap=True)
        if transferred:
            write_atomically(folder.path / "init.json", transferred.to_json())
        if training and not resumed:
            remember(folder.path, experiment, sources)
    processes.wait_for_leader()
    copied = experiment.run.copy
    if training and copied is not None:
        processes.let_leader(lambda: check_place(copied, folder.path))
    backbone.to(processes.device)
    assembly.check_grids(backbone, sources)
    return backbone


def _blamed(experiment: Experiment, backbone: nn.Module, evaluator: Evaluator) -> AbstractContextManager[None]:
    """Says in a plugin's name what goes wrong in its code in training and evaluation. Raises PluginError."""
    probe = partial(evaluator.try_once, backbone)
    return building.plugins_blamed(
        components_of(experiment), backbone, experiment.backbone, lambda: None if is_shared(backbone) else probe()
    )


def _validator(evaluator: Evaluator, sources: assembly.Sources) -> Evaluator | None:
    """What training goes by; None: there is nothing to go by."""
    if not sources.validation:
        return None
    return evolve(evaluator, sources=sources.validation, zero_shot=(), split="validation")


def _report(
    experiment: Experiment,
    folder: RunFolder,
    evaluator: Evaluator,
    backbone: nn.Module,
    facts: list[str],
    found: Sequence[Overlap],
    console: Console,
    validation: Report | None = None,
) -> Report:
    with _blamed(experiment, backbone, evaluator):
        report = evaluator.evaluate(backbone)
    if not evaluator.processes.leads:
        return report
    if experiment.evaluation.figures:
        draw_all(folder.path, evaluator, backbone, report)
    write_report(folder.path, experiment.title or folder.path.name, report, facts, found, validation)
    for table in make_tables(report, console):
        console.print(table)
    for line in (*measured_on(report, validation), *verdict(report)):
        console.print(line, highlight=False, soft_wrap=True)
    overlaps.say(found, console)
    console.print(f"report: {folder.path / 'report.md'}", highlight=False, soft_wrap=True)
    return report
