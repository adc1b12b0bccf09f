"""Lion against its formulas, written out for one weight at a time."""

from __future__ import annotations

import copy
from math import copysign

import pytest
import torch
from opframe_lion import Lion
from torch import Tensor


def by_hand(weight: list[float], gradients: list[list[float]], settings: Lion) -> list[float]:
    mean = [0.0] * len(weight)
    for gradient in gradients:
        for index, g in enumerate(gradient):
            mixed = settings.beta1 * mean[index] + (1 - settings.beta1) * g
            sign = copysign(1.0, mixed) if mixed else 0.0
            weight[index] -= settings.learning_rate * (sign + settings.weight_decay * weight[index])
            mean[index] = settings.beta2 * mean[index] + (1 - settings.beta2) * g
    return weight


def trained(weight: Tensor, gradients: Tensor, settings: Lion) -> Tensor:
    weight = weight.clone().requires_grad_()
    optimizer = settings.build([{"params": [weight]}])
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


def test_it_does_what_the_paper_says() -> None:
    weight, gradients = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([[0.1, 0.2, -3.0], [1.0, 0.0, 0.1]])
    settings = Lion(learning_rate=0.1, weight_decay=0.2)
    expected = torch.tensor(by_hand(weight.tolist(), gradients.tolist(), settings))
    torch.testing.assert_close(trained(weight, gradients, settings), expected)


def test_a_complex_weight_is_a_pair_of_real_ones() -> None:
    weight, gradients = torch.randn(4, 2), torch.randn(3, 4, 2)
    pairs = trained(torch.view_as_complex(weight), torch.view_as_complex(gradients), Lion())
    torch.testing.assert_close(torch.view_as_real(pairs), trained(weight, gradients, Lion()))


def test_groups_have_their_own_rate_and_frozen_weights_stay() -> None:
    slow, fast, still = (torch.ones(3, requires_grad=True) for _ in range(3))
    groups = [{"params": [slow], "lr": 1e-4}, {"params": [fast, still]}]
    optimizer = Lion(learning_rate=1e-2).build(groups)
    slow.grad, fast.grad = torch.ones(3), torch.ones(3)
    optimizer.step()
    assert torch.equal(still, torch.ones(3))
    assert float((1 - fast[0]) / (1 - slow[0]).detach()) == pytest.approx(100, rel=1e-2)


def test_it_goes_on_from_its_state_to_the_bit() -> None:
    weight = torch.randn(5, requires_grad=True)
    optimizer = Lion().build([{"params": [weight]}])
    gradients = torch.randn(4, 5)

    def steps(optimizer: torch.optim.Optimizer, weight: Tensor, chosen: Tensor) -> None:
        for gradient in chosen:
            weight.grad = gradient.clone()
            optimizer.step()

    steps(optimizer, weight, gradients[:2])
    other = weight.detach().clone().requires_grad_()
    resumed = Lion().build([{"params": [other]}])
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(optimizer, weight, gradients[2:])
    steps(resumed, other, gradients[2:])
    assert torch.equal(weight, other)
