"""What a model is told of its samples: the conditions of trajectories, of windows that lie in them, and of batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from math import nan

import torch
from torch import Tensor

from opframe.mixture.source import Source
from opframe_registry import Conditions, Fields

_UNKNOWN_DATASET = -1


def conditions_of(sources: Sequence[Source], trajectories: Sequence[int], fields: Fields) -> Conditions:
    """The conditions of one trajectory of each of some sources, all of whose points are valid."""
    metadata = [source.metadata for source in sources]
    axes = len(fields.grid)
    numbers = [
        [own.value(name, trajectory) for name in fields.parameters]
        for own, trajectory in zip(metadata, trajectories, strict=True)
    ]
    return Conditions(
        parameters=torch.tensor(numbers, dtype=torch.float32).view(len(sources), len(fields.parameters)),
        time_step=torch.tensor([nan if own.time_step is None else own.time_step for own in metadata]).float(),
        spacing=torch.tensor([own.spacing or (nan,) * axes for own in metadata], dtype=torch.float32),
        boundary=torch.tensor([own.boundary for own in metadata], dtype=torch.int64),
        valid=torch.ones(1, 1, *sources[0].seen(fields).grid, dtype=torch.bool),
        dataset=torch.tensor([_number(source.title, fields) for source in sources]),
    )


def unknown_conditions(fields: Fields, samples: int, device: torch.device) -> Conditions:
    """The conditions of samples of which nothing is known, on the grid of the fields."""
    axes = len(fields.grid)
    return Conditions(
        parameters=torch.full((samples, len(fields.parameters)), nan, device=device),
        time_step=torch.full((samples,), nan, device=device),
        spacing=torch.full((samples, axes), nan, device=device),
        boundary=torch.zeros(samples, axes, 2, dtype=torch.int64, device=device),
        valid=torch.ones(1, 1, *fields.grid, dtype=torch.bool, device=device),
        dataset=torch.full((samples,), _UNKNOWN_DATASET, device=device),
    )


def changed(conditions: Conditions, change: Callable[[Tensor], Tensor]) -> Conditions:
    """The conditions with every tensor changed, as by a copy to a device."""
    names = [item.name for item in dataclasses.fields(conditions)]
    return Conditions(**{name: change(getattr(conditions, name)) for name in names})


def in_parts(conditions: Conditions, parts: int) -> list[Conditions]:
    """Equal parts along the samples; what is one for all samples stays whole."""
    samples = len(conditions.dataset)
    pieces = {
        item.name: value.chunk(parts) if len(value) == samples else (value,) * parts
        for item in dataclasses.fields(conditions)
        for value in (getattr(conditions, item.name),)
    }
    count = len(pieces["dataset"])
    return [Conditions(**{name: piece[index] for name, piece in pieces.items()}) for index in range(count)]


def parameter_names(sources: Sequence[Source]) -> tuple[str, ...]:
    """The names of the parameters of all sources, in the order in which they come."""
    return tuple(dict.fromkeys(name for source in sources for name in source.metadata.parameters))


def _number(title: str, fields: Fields) -> int:
    return fields.datasets.index(title) if title in fields.datasets else _UNKNOWN_DATASET
