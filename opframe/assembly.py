"""Building everything an experiment names. The only place where components are built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from attrs import frozen
from torch import nn

from opframe.data.loading import Plan, Windows
from opframe.data.mixture import Source, channel_slots, open_source
from opframe.parameters import parameter_groups
from opframe.settings import Experiment
from opframe.weights.pretrained import read_pretrained
from opframe.weights.transfer import Transfer, transfer
from opframe_registry import Catalog, ConfigError, Dataset, Fields, LossFunction, Order, Progress, Split


@frozen(kw_only=True)
class Sources:
    """The opened data: what to train on, and what to evaluate on."""

    train: tuple[Source, ...]
    test: tuple[Source, ...]
    zero_shot: tuple[Source, ...]
    fields: Fields


def prepare_data(experiment: Experiment, progress: Progress) -> None:
    """Let every dataset make what it needs in the cache. Raises DataError."""
    for component in (*experiment.datasets, *experiment.zero_shot):
        component.prepare(Path(experiment.data.cache), progress)


def open_sources(experiment: Experiment) -> Sources:
    """Open all datasets and agree on the fields. Raises DataError or ConfigError."""
    train = _open(experiment, experiment.datasets, "train")
    test = _open(experiment, experiment.datasets, "test")
    zero_shot = _open(experiment, experiment.zero_shot, "test")
    data = experiment.data
    fields = Fields(
        channels=channel_slots(train, data.channels),
        grid=data.grid,
        history=data.history,
        horizon=data.horizon,
        datasets=tuple(source.title for source in train),
    )
    for source in (*train, *test, *zero_shot):
        _check_fit(source, fields)
    return Sources(train=train, test=test, zero_shot=zero_shot, fields=fields)


def _open(experiment: Experiment, components: Sequence[Dataset], split: Split) -> tuple[Source, ...]:
    history, frames = experiment.data.history, experiment.objective.frames
    cache = Path(experiment.data.cache)
    return tuple(
        open_source(component, component.build(split, cache), history, frames if split == "train" else 1)
        for component in components
    )


def _check_fit(source: Source, fields: Fields) -> None:
    metadata = source.metadata
    if len(metadata.grid) != len(fields.grid):
        raise ConfigError(
            f"data.grid: {list(fields.grid)} has {len(fields.grid)} axes, but {source.title} is given on the grid "
            f"{list(metadata.grid)}"
        )
    if len(metadata.channels) > len(fields.channels):
        raise ConfigError(
            f"{source.title} has the channels {', '.join(metadata.channels)}, but a model trained on this mixture "
            f"has {len(fields.channels)}"
        )


def build_backbone(experiment: Experiment, fields: Fields) -> nn.Module:
    """The network, with weights that depend on the seed alone."""
    torch.manual_seed(experiment.run.seed)
    return experiment.backbone.build(fields)


def initialise(experiment: Experiment, backbone: nn.Module, fields: Fields, catalog: Catalog) -> Transfer | None:
    """Load the trained weights that the experiment begins with, if any. Raises OpframeError."""
    init = experiment.init
    if init is None:
        return None
    pretrained = read_pretrained(init.from_, catalog)
    return transfer(experiment.backbone, backbone, fields, pretrained, init.components)


def build_loss(experiment: Experiment, fields: Fields) -> LossFunction:
    """The objective's loss function."""
    return experiment.objective.build(fields)


def build_order(experiment: Experiment, sources: Sequence[Source]) -> Order:
    """The order of the training windows."""
    frames = experiment.data.history + experiment.objective.frames
    return experiment.sampler.build([source.population(frames) for source in sources])


def build_optimizer(experiment: Experiment, backbone: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over all weights that are trained; the others are frozen. Raises ConfigError."""
    return experiment.optimizer.build(parameter_groups(backbone, experiment.backbone.parts, experiment.parameters))


def build_schedule(experiment: Experiment, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate schedule over the experiment's steps."""
    return experiment.schedule.build(optimizer, experiment.trainer.steps)


def training_windows(experiment: Experiment, sources: Sources) -> Windows:
    """The windows that training reads."""
    return Windows(sources=sources.train, fields=sources.fields, frames=experiment.objective.frames)


def check_shares(experiment: Experiment, processes: int) -> None:
    """Raises ConfigError when a batch cannot be shared equally."""
    size, parts = experiment.data.batch_size, processes * experiment.trainer.accumulate
    if size % parts:
        raise ConfigError(
            f"data.batch_size = {size} cannot be shared by {processes} processes x {experiment.trainer.accumulate} "
            f"accumulated parts; {size // parts * parts + parts} could"
        )


def training_plan(experiment: Experiment, order: Order, rank: int, ranks: int, steps: range) -> Plan:
    """What one process loads in the given steps. Raises ConfigError when the batch cannot be shared equally."""
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
