"""Building everything an experiment names, from its data to its schedule. `building.py` builds one component."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from opframe.config import building
from opframe.config.settings import Experiment
from opframe.console import counted
from opframe.mixture.conditions import parameter_names, unknown_conditions
from opframe.mixture.loading import Plan, Windows
from opframe.mixture.order import order_by_grid
from opframe.mixture.resizing import check_resize
from opframe.mixture.source import Source, channel_slots, open_dataset, open_source
from opframe.mixture.statistics import Statistics
from opframe.mixture.validation import hold_out
from opframe.run.parameters import parameter_groups
from opframe.weights.normalization import check_normalization, normalised
from opframe.weights.pretrained import read_pretrained
from opframe.weights.transfer import Transfer, transfer
from opframe_registry import Catalog, ConfigError, Dataset, Fields, LossFunction, Normalization, Order, Progress, Split


@frozen(kw_only=True)
class Sources:
    """The opened data: what to train on, what to go by meanwhile, and what to evaluate on in the end.

    Not every dataset that is trained on has validation data.
    """

    train: tuple[Source, ...]
    validation: tuple[Source, ...]
    test: tuple[Source, ...]
    zero_shot: tuple[Source, ...]
    fields: Fields


def prepare_data(experiment: Experiment, progress: Progress) -> None:
    """Let every dataset make what it needs in the cache, and compute what training data are normalised by.

    Nothing is read of test data. Raises DataError.
    """
    cache = Path(experiment.data.cache)
    for component in (*experiment.datasets, *experiment.zero_shot):
        building.prepare(component, cache, progress)
    if experiment.normalizer.changes:
        for statistics in _statistics(experiment, _open_training(experiment)[0]):
            statistics.prepare(progress)


def prepare_zero_shot(experiment: Experiment, sources: Sources, progress: Progress) -> None:
    """Compute what data that are only evaluated are normalised by: the first that is read of them. Raises DataError."""
    if experiment.normalizer.changes:
        for statistics in _zero_shot_statistics(experiment, sources.zero_shot):
            statistics.prepare(progress)


def normalised_zero_shot(experiment: Experiment, sources: Sources) -> Sources:
    """The sources with what `prepare_zero_shot` computed. Raises DataError."""
    if not experiment.normalizer.changes:
        return sources
    known = [statistics.read() for statistics in _zero_shot_statistics(experiment, sources.zero_shot)]
    return evolve(sources, zero_shot=_normalised(sources.zero_shot, known))


def all_statistics(experiment: Experiment) -> list[Statistics]:
    """What all data are to be normalised by, known or not. Raises DataError."""
    if not experiment.normalizer.changes:
        return []
    train, zero_shot = _open_training(experiment)[0], _open(experiment, experiment.zero_shot, "test")
    return [*_statistics(experiment, train), *_zero_shot_statistics(experiment, zero_shot)]


def open_sources(experiment: Experiment, normalise: bool = True) -> Sources:
    """Open all datasets and agree on the fields. Raises OpframeError.

    Those that are trained on are normalised, if the experiment says so; the others by `normalised_zero_shot`.
    """
    data = experiment.data
    train, validation = _open_training(experiment)
    test = _open(experiment, experiment.datasets, "test")
    zero_shot = _open(experiment, experiment.zero_shot, "test")
    if normalise and experiment.normalizer.changes:
        known = [statistics.read() for statistics in _statistics(experiment, train)]
        by_title = {source.title: each for source, each in zip(train, known, strict=True)}
        validation = _normalised(validation, [by_title[source.title] for source in validation])
        train, test = _normalised(train, known), _normalised(test, known)
    fields = Fields(
        channels=channel_slots(train, data.channels),
        grid=data.grid,
        history=data.history,
        horizon=data.horizon,
        datasets=tuple(source.title for source in train),
        parameters=parameter_names(train),
    )
    for source in (*train, *validation, *test, *zero_shot):
        _check_fit(source, fields)
        check_resize(source.title, source.metadata.grid, source.seen(fields).grid, data.resize, source.metadata.missing)
    return Sources(train=train, validation=validation, test=test, zero_shot=zero_shot, fields=fields)


def _open_training(experiment: Experiment) -> tuple[tuple[Source, ...], tuple[Source, ...]]:
    """What is trained on, and what validation goes by: the data's own split, or trajectories that are held out."""
    train: list[Source] = []
    validation: list[Source | None] = []
    for component, whole in zip(experiment.datasets, _open(experiment, experiment.datasets, "train"), strict=True):
        if "validation" not in building.splits_of(component):
            rest, held_out = hold_out(whole, component.validation, experiment.data.validation)
            train.append(rest)
            validation.append(held_out)
            continue
        train.append(whole)
        if component.validation != 0:
            validation += _open(experiment, [component], "validation")
    return tuple(train), tuple(source for source in validation if source is not None)


def _open(experiment: Experiment, components: Sequence[Dataset], split: Split) -> tuple[Source, ...]:
    history, frames = experiment.data.history, experiment.objective.frames if split == "train" else 1
    cache = Path(experiment.data.cache)
    opened = (
        open_source(component, open_dataset(component, split, cache), history, frames, split)
        for component in components
    )
    return tuple(evolve(source, resize=experiment.data.resize) for source in opened)


def _statistics(experiment: Experiment, train: Sequence[Source]) -> Iterator[Statistics]:
    """What each dataset that is trained on is normalised by, also its validation and test data: all training frames."""
    make = partial(Statistics, cache=Path(experiment.data.cache), normalizer=experiment.normalizer)
    for component, source in zip(experiment.datasets, train, strict=True):
        yield make(component=component, source=source, frames=source.metadata.frames)


def _zero_shot_statistics(experiment: Experiment, zero_shot: Sequence[Source]) -> Iterator[Statistics]:
    """What each dataset that is never trained on is normalised by.

    It goes by the frames of history, which a model is given, of the trajectories that are evaluated: there is nothing
    else one may know of it.
    """
    make = partial(Statistics, cache=Path(experiment.data.cache), normalizer=experiment.normalizer)
    for component, source in zip(experiment.zero_shot, zero_shot, strict=True):
        yield make(component=component, source=source, frames=experiment.data.history)


def _normalised(sources: Sequence[Source], known: Sequence[Normalization]) -> tuple[Source, ...]:
    return tuple(evolve(source, normalization=each) for source, each in zip(sources, known, strict=True))


def _check_fit(source: Source, fields: Fields) -> None:
    metadata = source.metadata
    if len(metadata.grid) != len(fields.grid):
        raise ConfigError(
            f"data.grid: {list(fields.grid)} has {counted(len(fields.grid), 'axis')}, but {source.title} is given on "
            f"the grid {list(metadata.grid)}"
        )
    if len(metadata.channels) > len(fields.channels):
        raise ConfigError(
            f"{source.title} has the channels {', '.join(metadata.channels)}, but a model trained on this mixture "
            f"has {len(fields.channels)}"
        )


def build_backbone(experiment: Experiment, fields: Fields) -> nn.Module:
    """The network, with weights that depend on the seed alone. Raises ConfigError for one without weights."""
    torch.manual_seed(experiment.run.seed)
    network = building.build_network(experiment.backbone, fields)
    if next(network.parameters(), None) is None:
        name = experiment.backbone.name
        raise ConfigError(f"[backbone] {name} has no weights to train; name it in evaluation.baselines instead")
    return network


@torch.no_grad()
def check_grids(backbone: nn.Module, sources: Sources) -> None:
    """Let the network predict once on every grid that is not its own, in evaluation mode.

    Raises ConfigError naming the dataset whose grid it does not take.
    """
    fields = sources.fields
    backbone.eval()
    device = next(backbone.parameters()).device
    every = (*sources.train, *sources.validation, *sources.test, *sources.zero_shot)
    for grid, title in {source.seen(fields).grid: source.title for source in reversed(every)}.items():
        if grid == fields.grid:
            continue
        try:
            frames = torch.zeros(1, fields.history, len(fields.channels), *grid, device=device)
            backbone(frames, unknown_conditions(evolve(fields, grid=grid), 1, device))
        except (ConfigError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"data.resize = 'native': {title} is given on the grid {list(grid)}, on which the backbone cannot "
                f"work ({error}); change the backbone's keys, or let the data be resized, as with data.resize = "
                "'bilinear'"
            ) from error


def initialise(experiment: Experiment, backbone: nn.Module, sources: Sources, catalog: Catalog) -> Transfer | None:
    """Load the trained weights that the experiment begins with, if any.

    Raises OpframeError, also where they were trained on data normalised otherwise and nothing states that it is so.
    """
    init = experiment.init
    if init is None:
        return None
    pretrained = read_pretrained(init.from_, catalog)
    if init.normalization is None:
        check_normalization(pretrained, experiment.normalizer, normalised(sources.train))
    return transfer(experiment.backbone, backbone, sources.fields, pretrained, init.components)


def build_loss(experiment: Experiment, fields: Fields) -> LossFunction:
    """The objective's loss function."""
    return building.build_loss(experiment.objective, fields)


def build_order(experiment: Experiment, sources: Sequence[Source]) -> Order:
    """The order of the training windows, in batches of one grid where nothing is resized."""
    frames = experiment.data.history + experiment.objective.frames
    populations = [source.population(frames) for source in sources]
    if experiment.data.resize == "native":
        build = partial(building.build_order, experiment.sampler)
        return order_by_grid(build, populations, [source.metadata.grid for source in sources])
    return building.build_order(experiment.sampler, populations)


def build_optimizer(experiment: Experiment, backbone: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over all weights that are trained; the others are frozen. Raises ConfigError."""
    groups = parameter_groups(backbone, experiment.backbone.parts, experiment.parameters)
    return building.build_optimizer(experiment.optimizer, groups)


def optimizer_copies(experiment: Experiment) -> int:
    """How many numbers the optimizer keeps for each parameter, found out with a small one; 0 where that fails."""
    parameter = nn.Parameter(torch.zeros(8, 8))
    parameter.grad = torch.zeros(8, 8)
    with suppress(Exception):  # whatever is wrong with it is said where it is built for the network
        optimizer = building.build_optimizer(experiment.optimizer, [{"params": [parameter]}])
        optimizer.step()
        state = optimizer.state[parameter].values()
        return sum(isinstance(kept, Tensor) and kept.shape == parameter.shape for kept in state)
    return 0


def build_schedule(experiment: Experiment, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate schedule over the experiment's steps."""
    return building.build_schedule(experiment.schedule, optimizer, experiment.trainer.steps)


def training_windows(experiment: Experiment, sources: Sources) -> Windows:
    """The windows that training reads."""
    return Windows(sources=sources.train, fields=sources.fields, frames=experiment.objective.frames)


def check_shares(experiment: Experiment, processes: int) -> None:
    """Raises ConfigError when a batch has fewer samples than there are to be parts of it."""
    size, parts = experiment.data.batch_size, processes * experiment.trainer.accumulate
    if size < parts:
        raise ConfigError(
            f"data.batch_size = {size} cannot be shared by {counted(processes, 'process')} x "
            f"{experiment.trainer.accumulate} accumulated parts, as each needs a sample; {parts} or more could"
        )


def training_plan(experiment: Experiment, order: Order, rank: int, ranks: int, steps: range) -> Plan:
    """What one process loads in the given steps. Raises ConfigError when the batch cannot be shared."""
    check_shares(experiment, ranks)
    return Plan(
        order=order,
        seed=experiment.run.seed,
        batch_size=experiment.data.batch_size,
        rank=rank,
        ranks=ranks,
        first=steps.start,
        last=steps.stop,
    )
