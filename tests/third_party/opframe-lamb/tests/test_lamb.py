"""LAMB against its formulas, written out for one weight at a time."""

from __future__ import annotations

import copy
from math import sqrt

import pytest
import torch
from opframe_lamb import LAMB
from torch import Tensor


def by_hand(weight: list[float], gradients: list[list[float]], settings: LAMB) -> list[float]:
    mean, square = [0.0] * len(weight), [0.0] * len(weight)
    for step, gradient in enumerate(gradients, 1):
        update = []
        for index, (w, g) in enumerate(zip(weight, gradient, strict=True)):
            mean[index] = settings.beta1 * mean[index] + (1 - settings.beta1) * g
            square[index] = settings.beta2 * square[index] + (1 - settings.beta2) * g * g
            direction = mean[index] / (1 - settings.beta1**step)
            root = sqrt(square[index] / (1 - settings.beta2**step))
            update.append(direction / (root + settings.epsilon) + settings.weight_decay * w)
        length, size = sqrt(sum(r * r for r in update)), sqrt(sum(w * w for w in weight))
        ratio = min(size, settings.largest) / length if length and size else 1.0
        weight = [w - settings.learning_rate * ratio * r for w, r in zip(weight, update, strict=True)]
    return weight


def trained(weight: Tensor, gradients: Tensor, settings: LAMB) -> Tensor:
    weight = weight.clone().requires_grad_()
    optimizer = settings.build([{"params": [weight]}])
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("largest", [10.0, 0.5])
def test_it_does_what_the_paper_says(largest: float) -> None:
    weight, gradients = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([[0.1, 0.2, -3.0], [1.0, 0.0, 0.1]])
    settings = LAMB(learning_rate=0.1, largest=largest)
    expected = torch.tensor(by_hand(weight.tolist(), gradients.tolist(), settings))
    torch.testing.assert_close(trained(weight, gradients, settings), expected)


def test_a_complex_weight_is_a_pair_of_real_ones() -> None:
    weight, gradients = torch.randn(4, 2), torch.randn(3, 4, 2)
    pairs = trained(torch.view_as_complex(weight), torch.view_as_complex(gradients), LAMB())
    torch.testing.assert_close(torch.view_as_real(pairs), trained(weight, gradients, LAMB()))


def test_a_weight_of_zeros_begins_to_move_and_no_gradient_moves_nothing() -> None:
    assert trained(torch.zeros(3), torch.ones(1, 3), LAMB(learning_rate=0.1)).abs().min() > 0
    assert torch.equal(trained(torch.ones(3), torch.zeros(1, 3), LAMB(weight_decay=0.0)), torch.ones(3))


def test_groups_have_their_own_rate_and_frozen_weights_stay() -> None:
    slow, fast, still = (torch.ones(3, requires_grad=True) for _ in range(3))
    groups = [{"params": [slow], "lr": 1e-4}, {"params": [fast, still]}]
    optimizer = LAMB(learning_rate=1e-2).build(groups)
    slow.grad, fast.grad = torch.ones(3), torch.ones(3)
    optimizer.step()
    assert torch.equal(still, torch.ones(3))
    assert float((1 - fast[0]) / (1 - slow[0]).detach()) == pytest.approx(100, rel=1e-2)


def test_it_goes_on_from_its_state_to_the_bit() -> None:
    weight = torch.randn(5, requires_grad=True)
    optimizer = LAMB().build([{"params": [weight]}])
    gradients = torch.randn(4, 5)

    def steps(optimizer: torch.optim.Optimizer, weight: Tensor, chosen: Tensor) -> None:
        for gradient in chosen:
            weight.grad = gradient.clone()
            optimizer.step()

    steps(optimizer, weight, gradients[:2])
    other = weight.detach().clone().requires_grad_()
    resumed = LAMB().build([{"params": [other]}])
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(optimizer, weight, gradients[2:])
    steps(resumed, other, gradients[2:])
    assert torch.equal(weight, other)


def test_it_finds_the_least_of_a_parabola() -> None:
    weight = torch.tensor([3.0, -2.0], requires_grad=True)
    optimizer = LAMB(learning_rate=0.02, weight_decay=0.0).build([{"params": [weight]}])
    goal = torch.tensor([1.0, 1.0])
    for _ in range(300):
        optimizer.zero_grad()
        (weight - goal).square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float((weight - goal).norm()) < 0.1
