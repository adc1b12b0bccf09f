"""The networks that a backbone makes for the kit: for which fields, what they are given, and how they are called."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from opframe_registry.backbone import Backbone
from opframe_registry.errors import ConfigError
from opframe_registry.metadata import Boundary
from opframe_registry.testing.promise import Case, NotApplicableError, PromiseError, require
from opframe_registry.values import Conditions, Fields, Prediction

FIELDS = (
    Fields(channels=("u", "v", "w"), grid=(24, 16), history=4, horizon=2, parameters=("viscosity",)),
    Fields(channels=("u",), grid=(16, 24), history=1),
    Fields(channels=("u",), grid=(32,), history=4),
    Fields(channels=("u", "v", "w"), grid=(8, 16, 8), history=2, horizon=2),
)
"""Fields in two, one and three dimensions; a backbone may refuse some of them, not all."""


def conditions_of(fields: Fields, samples: int, known: bool = False) -> Conditions:
    """What a model is told of samples: nothing, or of each something else."""
    axes = len(fields.grid)
    values = 0.1 + 0.05 * torch.arange(samples) if known else torch.full((samples,), torch.nan)
    sides = torch.arange(samples) % len(Boundary) if known else torch.zeros(samples, dtype=torch.int64)
    return Conditions(
        parameters=values[:, None].repeat(1, len(fields.parameters)),
        time_step=values,
        spacing=values[:, None].repeat(1, axes),
        boundary=sides.view(-1, 1, 1).repeat(1, axes, 2),
        valid=torch.ones(1, 1, *fields.grid, dtype=torch.bool),
        dataset=torch.zeros(samples, dtype=torch.int64),
    )


def part_of(conditions: Conditions, chosen: slice) -> Conditions:
    """What a model is told of some of the samples."""
    samples = len(conditions.dataset)
    told = {name: value[chosen] if len(value) == samples else value for name, value in vars(conditions).items()}
    return Conditions(**told)


def various_conditions(fields: Fields, samples: int) -> dict[str, Conditions]:
    """Conditions by what is said of them: all, nothing, some of some samples, and points that are not valid."""
    known, unknown = conditions_of(fields, samples, known=True), conditions_of(fields, samples)
    half = torch.arange(samples) % 2 == 0
    valid = torch.arange(math.prod(fields.grid)).view(fields.grid) % 5 > 0
    mixed = {
        name: getattr(known, name).where(half.view(-1, *[1] * (getattr(known, name).ndim - 1)), getattr(unknown, name))
        for name in ("parameters", "time_step", "spacing", "boundary")
    }
    nowhere = torch.full_like(known.dataset, -1)
    return {
        "conditions are known": known,
        "conditions are unknown (NaN)": unknown,
        "conditions are known of every other sample": dataclasses.replace(known, **mixed),
        "points are not valid": dataclasses.replace(known, valid=valid[None, None]),
        "points are not valid, of each sample": dataclasses.replace(
            known, valid=(valid | half.view(-1, *[1] * len(fields.grid)))[:, None]
        ),
        "samples are of no dataset of training": dataclasses.replace(known, dataset=nowhere),
    }


def settings_of(case: Case) -> Backbone:
    return cast("Backbone", case.component)


def network_of(backbone: Backbone, fields: Fields, seed: int = 0) -> nn.Module:
    """In evaluation mode."""
    torch.manual_seed(seed)
    return backbone.build(fields).eval()


def accepted(case: Case) -> Iterator[tuple[Fields, nn.Module]]:
    """Fresh networks, for those of the fields that the backbone takes."""
    refused = []
    for fields in FIELDS:
        try:
            network = network_of(settings_of(case), fields)
        except ConfigError as error:
            refused.append(f"{fields.grid}: {error}")
            continue
        yield fields, network
    require(len(refused) < len(FIELDS), f"it refuses all grids that were tried: {'; '.join(refused)}")


def normalised_too(case: Case) -> Iterator[tuple[Fields, nn.Module]]:
    """Fresh networks without and with `normalize`, for those of the fields that the backbone takes."""
    plain = case.with_settings(normalize=False)
    yield from accepted(plain)
    other = with_normalize(case)
    if other is not None:
        yield from accepted(other)


def with_normalize(case: Case) -> Case | None:
    """The case with `normalize`, where the backbone has the option, which it need not."""
    try:
        other = case.with_settings(normalize=True)
        first_network(other)
    except (PromiseError, ConfigError, ValueError):
        return None
    return other


def as_large(case: Case) -> Case:
    """With `normalize`, which has weights and paths of its own, where the backbone has the option."""
    return with_normalize(case) or case


def first_network(case: Case) -> tuple[Fields, nn.Module]:
    return next(accepted(case))


def with_weights(case: Case) -> tuple[Fields, nn.Module]:
    """The first, unless it has no weights, as baselines have none."""
    fields, network = first_network(case)
    if next(network.parameters(), None) is None:
        raise NotApplicableError("it has no weights")
    return fields, network


def inputs_of(fields: Fields, samples: int = 4) -> Tensor:
    return torch.randn(samples, fields.history, len(fields.channels), *fields.grid)


def predicted(network: nn.Module, inputs: Tensor, fields: Fields) -> Prediction:
    prediction = network(inputs, conditions_of(fields, len(inputs)))
    require(isinstance(prediction, Prediction), f"a call returns {type(prediction).__name__}, expected a Prediction")
    return cast("Prediction", prediction)


@torch.no_grad()
def field_of(network: nn.Module, inputs: Tensor, fields: Fields) -> Tensor:
    return predicted(network, inputs, fields).field


def distance(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm().clamp(min=1e-12))


@torch.no_grad()
def uses(network: nn.Module, fields: Fields, name: str) -> bool:
    """Whether what is predicted changes with one of the conditions."""
    torch.manual_seed(0)
    inputs = inputs_of(fields, 2)
    told = various_conditions(fields, 2)
    known, other = told["conditions are known"], told["conditions are unknown (NaN)"]
    other = told["points are not valid"] if name == "valid" else other
    other = told["samples are of no dataset of training"] if name == "dataset" else other
    changed = dataclasses.replace(known, **{name: getattr(other, name)})
    return not torch.equal(network(inputs, known).field, network(inputs, changed).field)
