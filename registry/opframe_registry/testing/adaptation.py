"""How a backbone promises to make trained weights fit other networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from opframe_registry.backbone import Backbone
from opframe_registry.errors import ConfigError
from opframe_registry.testing.networks import (
    accepted,
    as_large,
    field_of,
    inputs_of,
    network_of,
    settings_of,
    with_weights,
)
from opframe_registry.testing.promise import Case, Promise, require
from opframe_registry.values import Adapted, Change, Fields

_CHANGES: tuple[dict[str, Any], ...] = (
    {"channels": ("a", "b", "c", "d", "e")},
    {"channels": ("a",), "history": 1},
    {"history": 7, "horizon": 1},
    {"horizon": 3},
    {"grid": (32, 40)},
    {"grid": (8, 16, 8)},
)


def _adapted(
    backbone: Backbone, old: dict[str, Tensor], fresh: dict[str, Tensor], source: Fields, target: Fields
) -> Callable[[str], Adapted | None]:
    def one(name: str) -> Adapted | None:
        change = Change(
            name=name, weight=old[name], fresh=fresh[name].clone(), source=source, target=target, weights=old
        )
        return backbone.adapt(change)

    return one


def weights_fit_the_same_fields_as_they_are(case: Case) -> None:
    """Adapted to the fields that it was trained with, every weight stays as it is, without a word."""
    case = as_large(case)
    for fields, network in accepted(case):
        old, fresh = dict(network.state_dict()), dict(network_of(settings_of(case), fields, 1).state_dict())
        adapt = _adapted(settings_of(case), old, fresh, fields, fields)
        for name, weight in old.items():
            adapted = adapt(name)
            kept = adapted is not None and torch.equal(adapted.weight, weight)
            require(kept, f"'{name}' is not taken as it is")
            how = "" if adapted is None else adapted.how
            require(how == "", f"'{name}' is said to be changed: {how}")


def adapted_weights_fit_other_fields(case: Case) -> None:
    """What is adapted to other channels, history, horizon or grid has the shape of the weight that it replaces."""
    case = as_large(case)
    source, network = with_weights(case)
    old = dict(network.state_dict())
    taken = 0
    for change in _CHANGES:
        target = attrs.evolve(source, **change)
        try:
            other = network_of(settings_of(case), target)
        except ConfigError:
            continue
        fresh = dict(other.state_dict())
        adapt = _adapted(settings_of(case), old, fresh, source, target)
        for name in old.keys() & fresh.keys():
            adapted = adapt(name)
            if adapted is None:
                continue
            shape, expected = tuple(adapted.weight.shape), tuple(fresh[name].shape)
            require(shape == expected, f"'{name}' has the shape {shape} for {change}, expected {expected}")
            fresh[name], taken = adapted.weight, taken + 1
        other.load_state_dict(fresh)
        finite = bool(field_of(other, inputs_of(target), target).isfinite().all())
        require(finite, f"adapted to {change}, it predicts values that are not finite")
    require(taken > 0, "no weight at all is adapted to other fields")


PROMISES: tuple[Promise, ...] = (weights_fit_the_same_fields_as_they_are, adapted_weights_fit_other_fields)
