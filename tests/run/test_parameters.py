"""Parameter groups and freezing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from opframe.config.settings import Group
from opframe.run.parameters import assign_groups, parameter_groups, training_mode
from opframe_registry import ConfigError

PARTS = {"body": ("body.*",), "head": ("head.*",)}


def network() -> nn.Module:
    return nn.ModuleDict(
        {
            "body": nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)),
            "head": nn.Sequential(nn.Conv2d(2, 1, 1), nn.BatchNorm2d(1)),
        }
    )


def test_the_first_group_that_matches_has_a_parameter() -> None:
    groups = [Group(match=("*.bias",), learning_rate=0.5), Group(match=("body",), learning_rate=0.1)]
    biases, body, rest = assign_groups(network(), PARTS, groups)
    assert biases == ["body.0.bias", "body.1.bias", "head.0.bias", "head.1.bias"]
    assert body == ["body.0.weight", "body.1.weight"]
    assert rest == ["head.0.weight", "head.1.weight"]


def test_groups_carry_their_learning_rate_and_the_rest_has_none_of_its_own() -> None:
    net = network()
    special, rest = parameter_groups(net, PARTS, [Group(match=("head",), learning_rate=0.5)])
    assert special["lr"] == 0.5
    assert "lr" not in rest
    assert len(special["params"]) == len(rest["params"]) == 4


def test_frozen_parameters_are_in_no_group_and_want_no_gradient() -> None:
    net = network()
    (rest,) = parameter_groups(net, PARTS, [Group(match=("body",), frozen=True)])
    assert [parameter.requires_grad for parameter in net.parameters()] == [False] * 4 + [True] * 4
    assert {id(parameter) for parameter in rest["params"]} == {id(item) for item in net["head"].parameters()}


def test_a_module_that_is_frozen_whole_stays_in_evaluation_mode() -> None:
    net = network()
    parameter_groups(net, PARTS, [Group(match=("body.*", "head.1.bias"), frozen=True)])
    training_mode(net)
    assert not any(module.training for module in net["body"].modules())
    assert net["head"].training
    assert net["head"][1].training  # its weight is trained
    assert net.training


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([Group(match=("bodi",), frozen=True)], r"parameters\[0\].match: 'bodi' .*did you mean 'body'\?"),
        ([Group(match=("*",), frozen=True)], "every parameter is frozen"),
    ],
)
def test_mistakes_are_explained(groups: list[Group], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parameter_groups(network(), PARTS, groups)


def test_frozen_and_a_learning_rate_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="frozen parameters have no learning_rate"):
        Group(match=("*",), frozen=True, learning_rate=torch.pi)
