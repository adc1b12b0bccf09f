"""What an optimizer promises."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any, cast

import attrs
import torch
from torch import nn

from opframe_registry.components import Optimizer
from opframe_registry.testing.promise import Case, Promise, PromiseError, require


def _parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(4)
    return [nn.Parameter(torch.randn(*shape, generator=generator)) for shape in ((6, 5), (5,), (3, 2, 4))]


def _optimizer(case: Case, groups: list[dict[str, Any]], rate: float = 0.05) -> torch.optim.Optimizer:
    settings = attrs.evolve(cast("Optimizer", case.component), learning_rate=rate)
    made = settings.build(groups)
    require(isinstance(made, torch.optim.Optimizer), f"build returns {type(made).__name__}")
    return made


def _steps(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: int) -> float:
    """Steps on a bowl whose lowest point is at 0.3; returns how far the parameters are from there."""
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.stack([(each - 0.3).square().sum() for each in parameters]).sum()
        torch.autograd.backward(loss)
        optimizer.step()
    return float(torch.stack([(each.detach() - 0.3).square().sum() for each in parameters]).sum())


def it_finds_the_lowest_point_of_a_bowl(case: Case) -> None:
    """Some hundred steps on a quadratic function lower it to less than a tenth."""
    parameters = _parameters()
    before = _steps(_optimizer(case, [{"params": parameters}]), parameters, 0)
    after = _steps(_optimizer(case, [{"params": parameters}]), parameters, 300)
    require(after <= 0.1 * before, f"the function falls from {before:.3g} to {after:.3g} only")


def learning_rates_are_heeded(case: Case) -> None:
    """A group takes its own `lr`, the others the setting `learning_rate`; with 0 nothing moves."""
    parameters = _parameters()
    kept = [each.detach().clone() for each in parameters]
    optimizer = _optimizer(case, [{"params": parameters[:1], "lr": 0.0}, {"params": parameters[1:]}])
    rates = [group["lr"] for group in optimizer.param_groups]
    require(rates == [0.0, 0.05], f"the groups have the rates {rates}, expected [0.0, 0.05]")
    _steps(optimizer, parameters, 3)
    require(torch.equal(parameters[0], kept[0]), "parameters whose group has lr = 0 move")
    require(not torch.equal(parameters[1], kept[1]), "parameters with a learning rate do not move")


def its_state_is_all_that_it_keeps(case: Case) -> None:
    """With the state dict of another, an optimizer goes on to the same bits."""
    parameters = _parameters()
    optimizer = _optimizer(case, [{"params": parameters}])
    _steps(optimizer, parameters, 5)
    others = [nn.Parameter(each.detach().clone()) for each in parameters]
    resumed = _optimizer(case, [{"params": others}])
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    _steps(optimizer, parameters, 5)
    _steps(resumed, others, 5)
    require(all(map(torch.equal, parameters, others)), "one that was resumed ends with other parameters")


def parameters_without_gradient_stay(case: Case) -> None:
    """A parameter without a gradient stays as it is."""
    parameters = _parameters()
    idle = nn.Parameter(torch.ones(3))
    _steps(_optimizer(case, [{"params": [*parameters, idle]}]), parameters, 3)
    require(bool((idle == 1).all()), "a parameter without a gradient moves")


def every_parameter_comes_nearer(case: Case) -> None:
    """On a quadratic function, parameters of any number of axes come nearer to its lowest point, in any group."""
    parameters = _parameters()
    before = [_distance(each) for each in parameters]
    groups: list[dict[str, Any]] = [{"params": parameters[:1], "lr": 0.03}, {"params": parameters[1:]}]
    _steps(_optimizer(case, groups), parameters, 300)
    for each, far in zip(parameters, before, strict=True):
        now = _distance(each)
        require(now < 0.5 * far, f"a parameter of shape {tuple(each.shape)} goes from {far:.3g} away to {now:.3g}")


def _distance(parameter: nn.Parameter) -> float:
    return float((parameter.detach() - 0.3).norm())


def a_rate_that_changes_is_heeded(case: Case) -> None:
    """A step takes the `lr` that its group has then, as a schedule sets it: with 0 nothing moves any more."""
    parameters = _parameters()
    optimizer = _optimizer(case, [{"params": parameters}])
    _steps(optimizer, parameters, 3)
    kept = [each.detach().clone() for each in parameters]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    _steps(optimizer, parameters, 3)
    require(all(map(torch.equal, parameters, kept)), "parameters move although the lr of their group has become 0")


def its_state_can_be_saved(case: Case) -> None:
    """The state dict holds tensors, numbers, words and collections of them, so that it comes back from a file."""
    parameters = _parameters()
    optimizer = _optimizer(case, [{"params": parameters}])
    _steps(optimizer, parameters, 3)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    try:
        found = torch.load(file, weights_only=True)
    except pickle.UnpicklingError as error:
        raise PromiseError(f"the state dict holds something else: {str(error).splitlines()[0]}") from error
    _optimizer(case, [{"params": _parameters()}]).load_state_dict(found)


PROMISES: tuple[Promise, ...] = (
    it_finds_the_lowest_point_of_a_bowl,
    learning_rates_are_heeded,
    its_state_is_all_that_it_keeps,
    parameters_without_gradient_stay,
    every_parameter_comes_nearer,
    a_rate_that_changes_is_heeded,
    its_state_can_be_saved,
)
