"""`opframe check`: what an experiment would do, found out without training."""

from __future__ import annotations

from itertools import chain, takewhile
from pathlib import Path

from rich.console import Console

from opframe.config.building import build_normalization
from opframe.config.settings import Experiment
from opframe.console import counted
from opframe.files.location import is_local, local_path
from opframe.mixture.source import frames_in_words, left_out, lengths_of, open_dataset
from opframe.mixture.statistics import Statistics
from opframe.mixture.validation import in_words
from opframe.run import assembly
from opframe.run.callbacks import build_callbacks
from opframe.run.distributed import assumed
from opframe.run.evaluating import make_evaluator
from opframe.run.facts import unselected
from opframe.run.memory_check import check_batches, check_memory
from opframe_registry import Catalog, DataError, Dataset
from opframe_registry.identity import locations


def check(experiment: Experiment, catalog: Catalog, console: Console) -> None:
    """Open the data and build all that trains. Raises OpframeError for whatever does not fit."""
    check_batches(experiment, processes=1)
    missing = _missing(experiment)
    for message in missing:
        console.print(f"not ready: {message}", highlight=False, soft_wrap=True)
    if missing:
        console.print("the settings are valid; the data cannot be checked yet", highlight=False)
        return
    unknown = [each for each in assembly.all_statistics(experiment) if not each.known]
    for statistics in unknown:
        build_normalization(experiment.normalizer, statistics.source.metadata)
        console.print(_to_be_computed(statistics), highlight=False, soft_wrap=True)
    sources = assembly.open_sources(experiment, normalise=not unknown)
    check_memory(experiment, sources, assumed(experiment.trainer.device))
    for source in (*sources.train, *sources.zero_shot):
        metadata = source.metadata
        console.print(
            f"{source.title}: {counted(metadata.trajectories, 'trajectory')} of "
            f"{frames_in_words(metadata)}, grid {'x'.join(map(str, metadata.grid))}, "
            f"channels {', '.join(metadata.channels)}",
            highlight=False,
        )
    said = (in_words(sources.train, sources.validation), unselected(experiment, bool(sources.validation)))
    evaluated = (*sources.validation, *sources.test, *sources.zero_shot)
    for line in chain(left_out(sources.train, evaluated), *said):
        console.print(line, highlight=False, soft_wrap=True)
    backbone = assembly.build_backbone(experiment, sources.fields)
    weights = sum(weight.numel() for weight in backbone.parameters())
    console.print(f"backbone {experiment.backbone.name}: {weights:,} parameters", highlight=False)
    transferred = assembly.initialise(experiment, backbone, sources, catalog)
    for line in transferred.summary() if transferred else ():
        console.print(line, highlight=False, soft_wrap=True)
    assembly.check_grids(backbone, sources)
    optimizer = assembly.build_optimizer(experiment, backbone)
    assembly.build_schedule(experiment, optimizer)
    assembly.build_loss(experiment, sources.fields)
    assembly.build_order(experiment, sources.train)
    build_callbacks(experiment.callbacks)
    make_evaluator(experiment, sources, catalog, assumed(experiment.trainer.device))
    frozen = sum(weight.numel() for weight in backbone.parameters() if not weight.requires_grad)
    if frozen:
        console.print(f"frozen: {frozen:,} parameters", highlight=False)
    console.print("ready to run", highlight=False)


def _to_be_computed(statistics: Statistics) -> str:
    source = statistics.source
    shorter = min(lengths_of(source.metadata)) < statistics.frames
    return (
        f"{source.title}: its statistics are not known yet; 'opframe run' computes them, once, from "
        f"{'up to ' if shorter else ''}{statistics.frames} frames of each of "
        f"{source.metadata.trajectories} trajectories"
    )


def _missing(experiment: Experiment) -> list[str]:
    """Why datasets cannot be opened yet, each once. Raises DataError for those whose files are there, and wrong."""
    messages: dict[str, None] = {}
    wrong: dict[str, None] = {}
    for component in (*experiment.datasets, *experiment.zero_shot):
        try:
            open_dataset(component, "test", Path(experiment.data.cache))
        except DataError as error:
            (wrong if _is_there(component) else messages)[str(error)] = None
    if wrong:
        raise DataError("\n".join(wrong))
    return list(messages)


def _is_there(component: Dataset) -> bool:
    """Whether all that a dataset's settings name is there; what is on another machine is taken to be."""
    places = [url.replace("{split}", "test") for url in locations(component)]
    return bool(places) and all(not is_local(url) or _exists(Path(local_path(url))) for url in places)


def _exists(path: Path) -> bool:
    """Whether a file or folder is there, of a pattern the folder from which it begins."""
    fixed = takewhile(lambda part: not set(part) & set("*?["), path.parts)
    try:
        return Path(*fixed).exists()
    except (OSError, ValueError):  # a name that cannot be one
        return True
