"""One run from its experiment to its report."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path

import torch
from attrs import frozen
from rich.console import Console
from torch import nn

from opframe.config import building
from opframe.config.settings import Experiment, components_of
from opframe.console import Bar, Preparation, counted
from opframe.evaluation.protocol import Evaluator
from opframe.evaluation.report import draw_all, make_tables, verdict, write_report
from opframe.evaluation.scores import Report
from opframe.files.atomic import write_atomically
from opframe.mixture.extremes import extreme_window
from opframe.mixture.loading import batches, make_loader
from opframe.mixture.overlap import Overlap, advice
from opframe.mixture.source import left_out
from opframe.processes import Processes
from opframe.run import assembly
from opframe.run.checkpoint import Checkpoints, restore_state
from opframe.run.distributed import joined
from opframe.run.evaluating import make_evaluator
from opframe.run.facts import facts_of, plan_in_words, size_in_words
from opframe.run.folder import RunFolder
from opframe.run.journal import Journal
from opframe.run.memory_check import check_batches, check_memory, explained
from opframe.run.trainer import Outcome, Trainer, wrap
from opframe.weights.checkpoints import latest_step, read_record
from opframe_registry import Catalog, ConfigError


@frozen(kw_only=True)
class Request:
    """What the person asked for."""

    experiment: Experiment
    catalog: Catalog
    resume: bool
    stop_at: int | None
    how_to_continue: str


def run(request: Request, console: Console) -> Outcome:
    """Prepare, train, evaluate and report. Raises OpframeError for what the person can mend."""
    experiment = request.experiment
    folder = RunFolder(path=Path(experiment.run.folder))
    with joined(experiment.trainer.device) as processes, explained():
        folder.claim(experiment, request.resume, request.how_to_continue)
        processes.wait()
        if processes.leads:
            check_batches(experiment, processes.count)
            prepare(experiment, console)
        overlaps = _overlaps(experiment, processes, console)
        processes.wait()
        outcome = _train_and_report(request, folder, processes, overlaps, console)
        gc.collect()  # the distributed model must be gone before the process group is
    return outcome


def prepare(experiment: Experiment, console: Console) -> None:
    """Let the datasets make what they need, with a bar for each. Raises DataError."""
    with Preparation(console) as progress:
        assembly.prepare_data(experiment, progress)


def _overlaps(experiment: Experiment, processes: Processes, console: Console) -> list[Overlap]:
    """Which test data are trained on, said and, for the report of the leading process, given."""
    if not (processes.leads and experiment.evaluation.overlap):
        return []
    with Preparation(console) as progress:
        found = assembly.overlaps(experiment, progress)
    _say_overlaps(found, console)
    return found


def _say_overlaps(overlaps: Sequence[Overlap], console: Console) -> None:
    for found in overlaps:
        style = "bold red" if found.same else None
        console.print(found.words, style=style, markup=False, highlight=False, soft_wrap=True)
    for line in advice(overlaps):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _train_and_report(
    request: Request, folder: RunFolder, processes: Processes, overlaps: Sequence[Overlap], console: Console
) -> Outcome:
    experiment = request.experiment
    started = time.monotonic()
    sources = assembly.open_sources(experiment)
    check_memory(experiment, sources, processes)
    processes.wait()
    evaluator = make_evaluator(experiment, sources, request.catalog, processes)
    backbone = _begin(request, folder, sources, processes, console)
    if processes.leads:
        for line in left_out(sources.train):
            console.print(line, highlight=False, soft_wrap=True)
        console.print(", ".join([*plan_in_words(experiment, backbone), f"on {processes.device}"]), highlight=False)
    with _blamed(experiment, backbone, evaluator):
        outcome = _train(request, folder, sources, backbone, evaluator, console)
    if not outcome.interrupted:
        when = f"{time.monotonic() - started:.0f} s since the run began or was resumed"
        done = [*plan_in_words(experiment, backbone), "evaluated as the last step left it; nothing was selected"]
        facts = facts_of(experiment, processes, done, when)
        _report(experiment, folder, evaluator, backbone, facts, overlaps, console)
    return outcome


def evaluate(request: Request, console: Console) -> None:
    """Evaluate the weights that the experiment begins with, without training. Raises OpframeError."""
    experiment = request.experiment
    if experiment.init is None:
        raise ConfigError(
            "there are no weights to evaluate; name a weights folder or a run folder as init.from, "
            "as in --set init.from=runs/dpot_pretrain"
        )
    if experiment.init.normalization is not None:
        raise ConfigError(
            "init.normalization = 'changed' is for training, which can make up for it; what is evaluated has to be "
            "normalised as the weights were trained: leave the key out"
        )
    folder = RunFolder(path=Path(experiment.run.folder))
    with joined(experiment.trainer.device) as processes, explained():
        folder.claim(experiment, request.resume, request.how_to_continue)
        prepare(experiment, console)
        overlaps = _overlaps(experiment, processes, console)
        sources = assembly.open_sources(experiment)
        check_memory(experiment, sources, processes, training=False)
        evaluator = make_evaluator(experiment, sources, request.catalog, processes)
        backbone = _begin(request, folder, sources, processes, console)
        facts = facts_of(experiment, processes, [size_in_words(experiment, backbone)], "evaluated without training")
        _report(experiment, folder, evaluator, backbone, facts, overlaps, console)


def _begin(
    request: Request, folder: RunFolder, sources: assembly.Sources, processes: Processes, console: Console
) -> nn.Module:
    """The network as training begins, and a run folder that says what it is."""
    experiment = request.experiment
    backbone = assembly.build_backbone(experiment, sources.fields)
    resumed = latest_step(folder.checkpoints) is not None
    if resumed:
        folder.check_numbers(sources, request.catalog)
    transferred = None if resumed else assembly.initialise(experiment, backbone, sources, request.catalog)
    if processes.leads:
        folder.describe(experiment, sources, request.catalog, processes.device, processes.count)
        console.print(f"run folder: {folder.path}", highlight=False, soft_wrap=True)
        for line in transferred.summary() if transferred else ():
            console.print(line, highlight=False, soft_wrap=True)
        if transferred:
            write_atomically(folder.path / "init.json", transferred.to_json())
    processes.wait()
    backbone.to(processes.device)
    assembly.check_grids(backbone, sources)
    return backbone


def _blamed(experiment: Experiment, backbone: nn.Module, evaluator: Evaluator) -> AbstractContextManager[None]:
    """Says in a plugin's name what goes wrong in its code in training and evaluation. Raises PluginError."""
    return building.plugins_blamed(
        components_of(experiment), backbone, experiment.backbone, lambda: evaluator.try_once(backbone)
    )


def _train(
    request: Request,
    folder: RunFolder,
    sources: assembly.Sources,
    backbone: nn.Module,
    evaluator: Evaluator,
    console: Console,
) -> Outcome:
    experiment, processes = request.experiment, evaluator.processes
    settings = experiment.trainer
    optimizer = assembly.build_optimizer(experiment, backbone)
    schedule = assembly.build_schedule(experiment, optimizer)
    checkpoints = Checkpoints(folder.checkpoints, settings.keep, processes)
    torch.manual_seed(experiment.run.seed + processes.rank)
    step, latest = 0, checkpoints.latest()
    if latest is not None:
        _say_what_continues(latest, processes, console)
        step = restore_state(latest, backbone, optimizer, schedule, processes)
    if step >= settings.steps:
        return Outcome(step=step, interrupted=False)
    order = assembly.build_order(experiment, sources.train)
    stop_at = max(min(request.stop_at or settings.steps, settings.steps), step)
    plan = assembly.training_plan(experiment, order, processes.rank, processes.count, range(step, stop_at))
    windows = assembly.training_windows(experiment, sources)
    loader = make_loader(windows, plan, experiment.data.workers, pin=processes.device.type == "cuda")
    journal = Journal(folder.path, step) if processes.leads else None
    with Bar(console, "training", settings.steps, step, shown=processes.leads) as bar:
        trainer = Trainer(
            settings=settings,
            processes=processes,
            backbone=backbone,
            task=wrap(backbone, assembly.build_loss(experiment, sources.fields), settings, processes),
            optimizer=optimizer,
            schedule=schedule,
            checkpoints=checkpoints,
            journal=journal,
            evaluator=evaluator.limited(experiment.evaluation.trajectories),
            bar=bar,
            stop_at=stop_at,
            suspect=partial(extreme_window, windows, plan),
            step=step,
        )
        try:
            with closing(batches(loader)) as stream:
                return trainer.train(stream)
        finally:
            if journal:
                journal.close()


def _say_what_continues(latest: Path, processes: Processes, console: Console) -> None:
    record = read_record(latest)
    if not processes.leads:
        return
    console.print(f"continuing from {latest}", highlight=False)
    if record.processes != processes.count:
        console.print(
            f"it was written by {counted(record.processes, 'process')} and continues on {processes.count}: the data "
            "and the noise are the same, sums are rounded differently, and the state of dropout is not restored",
            highlight=False,
        )


def _report(
    experiment: Experiment,
    folder: RunFolder,
    evaluator: Evaluator,
    backbone: nn.Module,
    facts: list[str],
    overlaps: Sequence[Overlap],
    console: Console,
) -> None:
    with _blamed(experiment, backbone, evaluator):
        report: Report = evaluator.evaluate(backbone)
    if not evaluator.processes.leads:
        return
    if experiment.evaluation.figures:
        draw_all(folder.path, evaluator, backbone, report)
    write_report(folder.path, experiment.title or folder.path.name, report, facts, overlaps)
    for table in make_tables(report, console):
        console.print(table)
    for line in verdict(report):
        console.print(line, highlight=False)
    _say_overlaps(overlaps, console)
    console.print(f"report: {folder.path / 'report.md'}", highlight=False, soft_wrap=True)
