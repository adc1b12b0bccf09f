"""The library's network behind the contract."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import nan

import pytest
import torch
from opframe_neuralop import NeuralopFNO
from torch import Tensor, nn

from opframe_registry import Conditions, ConfigError, Fields

FIELDS = Fields(channels=("u", "v"), grid=(16, 16), history=3, horizon=2, parameters=("viscosity", "buoyancy"))
SETTINGS = NeuralopFNO(width=8, depth=2, modes=6)


def made(fields: Fields = FIELDS) -> nn.Module:
    torch.manual_seed(0)
    return SETTINGS.build(fields)


def window(samples: int = 2) -> Tensor:
    return torch.randn(samples, 3, 2, 16, 16, generator=torch.Generator().manual_seed(1))


def conditions(samples: int = 2, **known: Tensor) -> Conditions:
    unknown = Conditions(
        parameters=torch.full((samples, 2), nan),
        time_step=torch.full((samples,), nan),
        spacing=torch.full((samples, 2), nan),
        boundary=torch.zeros(samples, 2, 2, dtype=torch.int64),
        valid=torch.ones(1, 1, 16, 16, dtype=torch.bool),
        dataset=torch.full((samples,), -1),
    )
    return replace(unknown, **known)


def test_it_predicts_a_bundle_of_frames_from_what_is_not_known() -> None:
    field = made()(window(), conditions()).field
    assert field.shape == (2, 2, 2, 16, 16)
    assert field.isfinite().all()


@pytest.mark.parametrize(
    "known",
    [
        {"parameters": torch.tensor([[1e-3, nan], [1e-3, nan]])},
        {"time_step": torch.tensor([0.1, 0.1])},
        {"valid": torch.arange(16).view(1, 1, 16, 1).expand(1, 1, 16, 16) > 3},
    ],
)
def test_what_is_known_changes_the_prediction(known: dict[str, Tensor]) -> None:
    network = made()
    assert not torch.allclose(network(window(), conditions()).field, network(window(), conditions(**known)).field)


def test_numbers_of_the_equation_are_told_by_their_order_of_magnitude() -> None:
    told = [
        made()._constants(conditions(parameters=torch.tensor([[value, 0.0]] * 2)), torch.Size((1, 1)))[0, :2, 0, 0]
        for value in (1e-4, 1e-3, 1e-2, -1e-2)
    ]
    steps = [float(after[0] - before[0]) for before, after in itertools.pairwise(told)]
    assert steps[0] == pytest.approx(2.3026, abs=0.01)
    assert steps[1] == pytest.approx(2.3026, abs=0.01)
    assert float(told[3][0]) == -float(told[2][0])
    assert float(told[0][1]) == 0.0


def test_what_is_not_known_is_learnt() -> None:
    network = made()
    network(window(), conditions(time_step=torch.tensor([0.1, 0.1]))).field.square().mean().backward()
    gradient = network.get_parameter("unknown").grad
    assert gradient is not None
    assert (gradient[:2] != 0).all()  # no sample has a parameter
    assert gradient[2] == 0  # all have a time step
    assert all(weight.grad is not None for weight in network.parameters())


def test_the_state_dict_has_tensors_only_and_comes_back() -> None:
    network, other = made(), SETTINGS.build(FIELDS)
    state = network.state_dict()
    assert all(isinstance(value, Tensor) for value in state.values())
    other.load_state_dict(state)
    assert torch.equal(network(window(), conditions()).field, other(window(), conditions()).field)


def test_it_compiles_as_a_whole_and_runs_under_autocast() -> None:
    network = made()
    expected = network(window(), conditions()).field
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(window(), conditions()).field, expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network(window(), conditions()).field, expected)


def test_it_is_made_for_three_axes() -> None:
    fields = Fields(channels=("u",), grid=(8, 8, 8), history=1)
    network = NeuralopFNO(width=4, depth=1, modes=4).build(fields)
    told = Conditions(
        parameters=torch.empty(1, 0),
        time_step=torch.tensor([nan]),
        spacing=torch.full((1, 3), nan),
        boundary=torch.zeros(1, 3, 2, dtype=torch.int64),
        valid=torch.ones(1, 1, 8, 8, 8, dtype=torch.bool),
        dataset=torch.tensor([-1]),
    )
    assert network(torch.randn(1, 1, 1, 8, 8, 8), told).field.shape == (1, 1, 1, 8, 8, 8)


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(ConfigError, match="modes = 6 are too many for the grid 4x8"):
        SETTINGS.build(Fields(channels=("u",), grid=(4, 8), history=1))
    with pytest.raises(ConfigError, match="normalize"):
        NeuralopFNO(normalize=True).build(FIELDS)
    small = window()[..., :4, :4]
    with pytest.raises(ConfigError, match="grid 4x4"):
        made()(small, conditions(valid=torch.ones(1, 1, 4, 4, dtype=torch.bool)))
