"""Trained weights of a patch transformer keep their meaning on other grids, channels, histories and horizons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from attrs import evolve
from torch import Tensor, nn

from opframe_pot import DPOT
from opframe_registry import Adapted, Fields
from support import adapted_weight

SMALL = DPOT(width=16, depth=2, heads=2, patch=4, output_width=8)
FIELDS = Fields(channels=("a", "b", "c"), grid=(16, 8), history=5, horizon=2)


def with_channels(number: int) -> Fields:
    return evolve(FIELDS, channels=tuple("abcdefgh"[:number]))


def trained(settings: DPOT = SMALL, fields: Fields = FIELDS) -> nn.Module:
    """A network whose weights are all different from what a fresh one begins with."""
    torch.manual_seed(0)
    network = settings.build(fields)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.2)
    return network


def adaptations(
    network: nn.Module,
    source: Fields,
    target: Fields,
    settings: DPOT = SMALL,
    fresh_value: float | None = None,
) -> dict[str, tuple[Tensor, Adapted | None]]:
    """The fresh tensors of another network, and what becomes of them."""
    torch.manual_seed(1)
    weights = network.state_dict()
    result = {}
    for name, fresh in settings.build(target).state_dict().items():
        fresh = fresh if fresh_value is None else torch.full_like(fresh, fresh_value)
        adapted = adapted_weight(settings, name, fresh, source, target, weights) if name in weights else None
        result[name] = fresh, adapted
    return result


def adapt(network: nn.Module, source: Fields, target: Fields, settings: DPOT = SMALL, **options: Any) -> nn.Module:
    """The network for the target, with adapted weights and fresh ones where there are none."""
    found = adaptations(network, source, target, settings, **options)
    result = settings.build(target)
    result.load_state_dict({name: fresh if item is None else item.weight for name, (fresh, item) in found.items()})
    return result


def predict(network: nn.Module, u: Tensor) -> Tensor:
    with torch.no_grad():
        field: Tensor = network(u).field
    return field


def difference(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


@pytest.mark.parametrize("grid", [(16, 8), (8, 4, 8)])
@pytest.mark.parametrize("time_aggregation", ["exp_mlp", "mlp"])
def test_a_network_adapted_to_its_own_fields_is_identical(grid: tuple[int, ...], time_aggregation: Any) -> None:
    settings = evolve(SMALL, normalize=True, classes=3, time_aggregation=time_aggregation)
    fields = evolve(FIELDS, grid=grid)
    network = trained(settings, fields)
    weights = network.state_dict()
    for name, (_, adapted) in adaptations(network, fields, fields, settings).items():
        assert adapted is not None, name
        assert torch.equal(adapted.weight, weights[name]), name
        assert adapted.how == "", name


def test_a_resized_position_embedding_keeps_a_constant_and_a_slope() -> None:
    network = trained()
    positions, finer = torch.arange(4) + 0.5, torch.arange(8) / 2 + 0.25  # centres of patches along x
    for old, new in ((torch.ones(4), torch.ones(8)), (positions, finer.clamp(0.5, 3.5))):
        network.pos_embed.data = old[None, None, :, None].expand(1, 16, 4, 2).contiguous()
        _, adapted = adaptations(network, FIELDS, evolve(FIELDS, grid=(32, 32)))["pos_embed"]
        assert adapted is not None
        assert adapted.how == "position embedding resized from 4x2 to 8x8"
        assert torch.allclose(adapted.weight, new[None, None, :, None].expand(1, 16, 8, 8))


@pytest.mark.parametrize("normalize", [False, True])
def test_old_channels_are_predicted_as_before_while_new_ones_have_no_weight(normalize: bool) -> None:
    settings = evolve(SMALL, normalize=normalize)
    network = trained(settings)
    target = with_channels(5)
    wider = adapt(network, FIELDS, target, settings, fresh_value=0.0)
    u = torch.randn(2, 5, 5, 16, 8)
    assert difference(predict(wider, u)[:, :, :3], predict(network, u[:, :, :3])) <= 1e-5


def test_weights_come_back_from_more_channels_as_they_were() -> None:
    settings = evolve(SMALL, normalize=True)
    network = trained(settings)
    wider = adapt(network, FIELDS, with_channels(6), settings)
    back = adapt(wider, with_channels(6), FIELDS, settings)
    for name, weight in network.state_dict().items():
        assert torch.equal(back.state_dict()[name], weight), name


def test_new_channels_begin_fresh_and_are_reported() -> None:
    found = adaptations(trained(), FIELDS, with_channels(4))
    fresh, adapted = found["out_layer.4.bias"]
    assert adapted is not None
    assert adapted.how == "3 to 4 channels"
    assert torch.equal(adapted.weight.view(2, 4)[:, 3], fresh.view(2, 4)[:, 3])
    changed = {name for name, (_, item) in found.items() if item is not None and item.how}
    assert changed == {
        *(f"patch_embed.proj.{name}" for name in ("0.weight", "0.bias", "2.weight")),
        *(f"out_layer.4.{name}" for name in ("weight", "bias")),
    }


def steady_cosines(network: nn.Module) -> None:
    """Give the network frequencies with which the cosine of no frame comes near 0."""
    network.time_agg_layer.gamma.data = torch.linspace(0, 1.4, 16)[None]


@pytest.mark.parametrize("history", [6, 9])
@pytest.mark.parametrize("time_aggregation", ["exp_mlp", "mlp"])
def test_a_longer_history_leaves_the_prediction_as_it_was(history: int, time_aggregation: Any) -> None:
    settings = evolve(SMALL, time_aggregation=time_aggregation)
    network = trained(settings)
    if time_aggregation == "exp_mlp":
        steady_cosines(network)
    longer = adapt(network, FIELDS, evolve(FIELDS, history=history), settings)
    u = torch.randn(2, history, 3, 16, 8)
    assert difference(predict(longer, u), predict(network, u[:, -5:])) <= 1e-4


@pytest.mark.parametrize("history", [1, 2, 4])
def test_a_shorter_history_takes_the_frames_before_it_for_equal_to_its_first(history: int) -> None:
    """Exactly so where the embedding does not see the time; else the first frame's own time stands for theirs."""
    network = trained()
    steady_cosines(network)
    network.patch_embed.proj[0].weight.data[:, -1] = 0
    shorter = adapt(network, FIELDS, evolve(FIELDS, history=history))
    u = torch.randn(2, history, 3, 16, 8)
    padded = torch.cat([u[:, :1].expand(-1, 5 - history, -1, -1, -1), u], dim=1)
    assert difference(predict(shorter, u), predict(network, padded)) <= 1e-4


@pytest.mark.parametrize(("old", "new"), [(8, 10), (8, 6), (8, 4), (10, 5), (4, 8)])
@pytest.mark.parametrize("time_aggregation", ["exp_mlp", "mlp"])
def test_the_latent_stays_close_with_another_history(time_aggregation: Any, old: int, new: int) -> None:
    """Of a field that changes linearly in time, with frequencies and weights as they are published to begin with."""
    torch.manual_seed(0)
    settings = DPOT(width=64, depth=1, heads=4, patch=4, time_aggregation=time_aggregation)
    source, target = (evolve(FIELDS, history=frames) for frames in (old, new))
    network = settings.build(source)
    other = adapt(network, source, target, settings)
    now, rate = torch.randn(2, 4, 1, 3, 16, 8)
    inputs = [now + 0.02 * rate * torch.arange(1 - frames, 1)[:, None, None, None] for frames in (old, new)]
    with torch.no_grad():
        one, two = network._tokens(inputs[0]), other._tokens(inputs[1])
        fresh = settings.build(target)._tokens(inputs[1])
    assert difference(two, one) <= 0.15
    assert difference(fresh, one) >= 0.8


def test_vanishing_cosines_leave_the_matrices_of_time_bounded() -> None:
    network = trained()
    network.time_agg_layer.gamma.data.fill_(torch.pi)  # cos(t·γ) of the middle frame is 0
    _, adapted = adaptations(network, FIELDS, evolve(FIELDS, history=3))["time_agg_layer.w"]
    assert adapted is not None
    assert adapted.how == "history of 5 to 3 frames"
    assert adapted.weight.abs().max() <= 20 * network.time_agg_layer.w.abs().max()


def test_frames_beyond_the_trained_horizon_begin_as_its_last() -> None:
    network, further = trained(), evolve(FIELDS, horizon=4)
    u = torch.randn(2, 5, 3, 16, 8)
    frames, old = predict(adapt(network, FIELDS, further), u), predict(network, u)
    assert difference(frames, old[:, [0, 1, 1, 1]]) <= 1e-6
    assert difference(predict(adapt(network, FIELDS, evolve(FIELDS, horizon=1)), u), old[:, :1]) <= 1e-6
    _, adapted = adaptations(network, FIELDS, evolve(further, channels=("a",)))["out_layer.4.weight"]
    assert adapted is not None
    assert adapted.how == "3 to 1 channels, horizon of 2 to 4 frames"


def test_blocks_and_time_aggregation_go_from_two_to_three_dimensions_and_the_rest_begins_fresh() -> None:
    settings = evolve(SMALL, normalize=True, classes=2)
    network = trained(settings)
    weights = network.state_dict()
    found = adaptations(network, FIELDS, evolve(FIELDS, grid=(8, 4, 8)), settings)
    for name, (_, adapted) in found.items():
        if name.startswith(("patch_embed.", "pos_embed", "out_layer.")):
            assert adapted is None, name
        else:
            assert adapted is not None, name
            assert torch.equal(adapted.weight.flatten(), weights[name].flatten()), name
    _, adapted = found["blocks.0.mlp.0.weight"]
    assert adapted is not None
    assert adapted.how == "4 axes to 5"


def test_three_dimensions_with_blocks_of_two_treat_every_plane_alike() -> None:
    """What reshaped blocks compute on tokens that do not vary along an axis, they compute in two dimensions."""
    network = trained()
    found = adapt(network, FIELDS, evolve(FIELDS, grid=(16, 8, 12)))
    z = torch.randn(2, 4, 2, 16)
    with torch.no_grad():
        plane, space = network.blocks[0].mlp(z), found.blocks[0].mlp(z[..., None, :].expand(2, 4, 2, 3, 16))
    assert difference(space, plane[..., None, :].expand_as(space)) <= 1e-6


@pytest.mark.parametrize(
    ("settings", "fresh"),
    [
        ({"classes": 5}, {"cls_head.4.weight", "cls_head.4.bias"}),
        (
            {"patch": 2},
            {"patch_embed.proj.0.weight", "patch_embed.proj.0.bias", "patch_embed.proj.2.weight", "out_layer.0.weight"},
        ),
    ],
)
def test_what_cannot_be_adapted_begins_fresh(settings: dict[str, Any], fresh: Sequence[str]) -> None:
    network = trained(evolve(SMALL, classes=3))
    other = evolve(SMALL, **{"classes": 3, **settings})
    assert {name for name, (_, item) in adaptations(network, FIELDS, FIELDS, other).items() if item is None} == fresh


def test_weights_of_another_width_begin_fresh() -> None:
    found = adaptations(trained(), FIELDS, FIELDS, evolve(SMALL, width=32))
    kept = {name for name, (_, item) in found.items() if item is not None}
    assert kept == {"patch_embed.proj.0.weight", "patch_embed.proj.0.bias"} | {
        name for name in found if name.startswith("out_layer.") and name != "out_layer.0.weight"
    }
