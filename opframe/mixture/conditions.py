"""What a model is told of its samples: the conditions of trajectories, of windows that lie in them, and of batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import nan

import torch
from attrs import frozen
from torch import Tensor

from opframe.mixture.source import Source
from opframe_registry import Conditions, Fields, Metadata

_UNKNOWN_DATASET = -1


@frozen(kw_only=True, eq=False)
class Known:
    """What is known of all trajectories of some sources, in tensors of which a batch takes rows.

    `parameters` (rows, P) has a row for each trajectory, or one for a source whose trajectories share all of them:
    `rows` says of each source at which row it begins, and whether it has more than one. Of the others, each source has
    a row: `time_step` (S,), `spacing` (S, axes), `boundary` (S, axes, 2), `dataset` (S,).
    """

    rows: tuple[tuple[int, bool], ...]
    parameters: Tensor
    time_step: Tensor
    spacing: Tensor
    boundary: Tensor
    dataset: Tensor

    def of(self, samples: Sequence[tuple[int, int]], valid: Tensor) -> Conditions:
        """The conditions of samples, each by the number of its source and that of its trajectory.

        `valid` is that of `Conditions`.
        """
        rows = [self.rows[source][0] + trajectory * self.rows[source][1] for source, trajectory in samples]
        sources = torch.tensor([source for source, _ in samples])
        return Conditions(
            parameters=self.parameters.index_select(0, torch.tensor(rows)),
            time_step=self.time_step.index_select(0, sources),
            spacing=self.spacing.index_select(0, sources),
            boundary=self.boundary.index_select(0, sources),
            valid=valid,
            dataset=self.dataset.index_select(0, sources),
        )


def known_of(sources: Sequence[Source], fields: Fields) -> Known:
    """What a model with these fields is told of the trajectories of some sources."""
    metadata = [source.metadata for source in sources]
    parameters = [_parameters(own, fields.parameters) for own in metadata]
    begins = accumulate((len(rows) for rows in parameters), initial=0)
    return Known(
        rows=tuple((begin, len(rows) > 1) for begin, rows in zip(begins, parameters, strict=False)),
        parameters=torch.cat(parameters),
        time_step=torch.tensor([nan if own.time_step is None else own.time_step for own in metadata]).float(),
        spacing=torch.tensor([_spacing(source, fields) for source in sources], dtype=torch.float32),
        boundary=torch.tensor([own.boundary for own in metadata], dtype=torch.int64),
        dataset=torch.tensor([_number(source.title, fields) for source in sources]),
    )


def _spacing(source: Source, fields: Fields) -> tuple[float, ...]:
    """Between the points of the grid that a model sees."""
    own, grid = source.metadata, source.seen(fields).grid
    if own.spacing is None:
        return (nan,) * len(grid)
    if source.resize == "crop":
        return own.spacing
    return tuple(step * there / here for step, there, here in zip(own.spacing, own.grid, grid, strict=True))


def _parameters(metadata: Metadata, names: Sequence[str]) -> Tensor:
    """(rows, P), NaN where a number is not known: a row for each trajectory, or one where they share all numbers."""
    columns = [torch.tensor(metadata.parameters.get(name) or (nan,), dtype=torch.float32) for name in names]
    rows = max(map(len, columns), default=1)
    return torch.stack([column.expand(rows) for column in columns], 1) if columns else torch.empty(1, 0)


def conditions_of(
    sources: Sequence[Source], trajectories: Sequence[int], fields: Fields, known: Tensor | None = None
) -> Conditions:
    """The conditions of one trajectory of each of some sources.

    `known` (B, T, C, *grid) says where their input frames have values, as `read_known` does; None: everywhere.
    """
    distinct = list({id(source): source for source in sources}.values())
    numbers = {id(source): number for number, source in enumerate(distinct)}
    samples = [(numbers[id(source)], number) for source, number in zip(sources, trajectories, strict=True)]
    valid = all_valid(sources[0].seen(fields).grid) if known is None else valid_points(known)
    return known_of(distinct, fields).of(samples, valid)


def all_valid(grid: Sequence[int]) -> Tensor:
    """(1, 1, *grid): every point of every sample has values."""
    return torch.ones(1, 1, *grid, dtype=torch.bool)


def valid_points(known: Tensor) -> Tensor:
    """Where all channels of all frames have a value: (B, T, C, *grid) -> (B, 1, *grid)."""
    return known.all(1).all(1, keepdim=True)


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
    """So many parts along the samples; what is one for all samples stays whole."""
    samples = len(conditions.dataset)
    pieces = {
        item.name: value.tensor_split(parts) if len(value) == samples else (value,) * parts
        for item in dataclasses.fields(conditions)
        for value in (getattr(conditions, item.name),)
    }
    return [Conditions(**{name: piece[index] for name, piece in pieces.items()}) for index in range(parts)]


def parameter_names(sources: Sequence[Source]) -> tuple[str, ...]:
    """The names of the parameters of all sources, in the order in which they come."""
    return tuple(dict.fromkeys(name for source in sources for name in source.metadata.parameters))


def _number(title: str, fields: Fields) -> int:
    return fields.datasets.index(title) if title in fields.datasets else _UNKNOWN_DATASET
