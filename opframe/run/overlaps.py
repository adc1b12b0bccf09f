"""Asking whether a run evaluates what it has trained on or was validated by, and saying so."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from opframe.config.settings import Experiment
from opframe.mixture.fingerprints import Fingerprints
from opframe.mixture.overlap import Compared, Overlap, advice, find_overlaps
from opframe.mixture.source import Source
from opframe.run.assembly import Sources
from opframe_registry import Dataset, Progress, Split


def with_validation(experiment: Experiment, sources: Sources, progress: Progress) -> list[Overlap]:
    """What validation goes by of that which is trained on. Nothing is read of test data. Raises DataError."""
    validation = list(_validation(experiment, sources))
    return find_overlaps(list(_training(experiment, sources)), validation, progress) if validation else []


def with_test(experiment: Experiment, sources: Sources, progress: Progress) -> list[Overlap]:
    """What is evaluated in the end of that which is trained on or validated by. Raises DataError."""
    test = _compared(experiment, experiment.datasets, sources.test, "test")
    zero_shot = _compared(experiment, experiment.zero_shot, sources.zero_shot, "test", zero_shot=True)
    used = [*_training(experiment, sources), *_validation(experiment, sources)]
    return find_overlaps(used, [*test, *zero_shot], progress)


def _training(experiment: Experiment, sources: Sources) -> Iterator[Compared]:
    return _compared(experiment, experiment.datasets, sources.train, "train")


def _validation(experiment: Experiment, sources: Sources) -> Iterator[Compared]:
    """Held-out trajectories have their place among those for training."""
    held_out = {source.title for source in sources.train if source.held_out}
    return _compared(experiment, experiment.datasets, sources.validation, "validation", held_out=held_out)


def _compared(
    experiment: Experiment,
    components: Sequence[Dataset],
    sources: Sequence[Source],
    use: Split,
    zero_shot: bool = False,
    held_out: Collection[str] = (),
) -> Iterator[Compared]:
    by_title = {component.title: component for component in components}
    for source in sources:
        held, component = source.title in held_out, by_title[source.title]
        prints = Fingerprints(
            component=component,
            split="train" if held else use,
            source=source,
            cache=Path(experiment.data.cache),
            excluded=component.exclude,
        )
        yield Compared(prints=prints, use=use, zero_shot=zero_shot, held_out=held)


def say(overlaps: Sequence[Overlap], console: Console) -> None:
    """Print what was found, and what to do about it."""
    for found in overlaps:
        style = "bold red" if found.same else None
        console.print(found.words, style=style, markup=False, highlight=False, soft_wrap=True)
    for line in advice(overlaps):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
