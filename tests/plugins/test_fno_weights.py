"""Weights of a trained FNO fit networks for other data, and published ones are read as they are meant."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import pytest
import torch
from torch import Tensor

from opframe.layers.dense import Pointwise
from opframe_fno import FNO
from opframe_fno.spectral import ModeTransform
from opframe_pot import DPOT
from opframe_registry import Adapted, ConfigError, Fields
from support import adapted_weight
from tests.plugins.test_fno import CASES, difference, fields_of, golden, ours

SMALL = FNO(width=8, depth=1, modes=3, normalize=True, classes=2)
FIRST = "patch_embed.proj.0.weight"


def adapted(name: str, source: Fields, target: Fields) -> tuple[Adapted, Tensor, Tensor]:
    """What becomes of a weight, the trained one and the fresh one."""
    old, fresh = SMALL.build(source).state_dict(), SMALL.build(target).state_dict()[name]
    result = adapted_weight(SMALL, name, fresh.clone(), source, target, old)
    assert result is not None
    assert result.weight.shape == fresh.shape
    return result, old[name], fresh


def test_a_shorter_history_keeps_the_latest_frames_and_the_slots_of_the_channels() -> None:
    source, target = fields_of(channels=1, history=6), fields_of(channels=3, history=2)  # both are 6 inputs of a point
    result, old, fresh = adapted(FIRST, source, target)
    weight, old, fresh = (tensor.flatten(1) for tensor in (result.weight, old, fresh))
    assert torch.equal(weight[:, [0, 3]], old[:, [4, 5]])  # channel 0 of the two latest frames
    assert torch.equal(weight[:, [1, 2, 4, 5]], fresh[:, [1, 2, 4, 5]])
    assert torch.equal(weight[:, 6:], old[:, 6:])  # coordinates
    assert result.how == "1 to 3 channels, history of 6 to 2 frames"


def test_a_longer_history_keeps_what_is_known_of_the_latest_frames() -> None:
    source, target = fields_of(channels=2, history=2), fields_of(channels=2, history=5)
    result, old, fresh = adapted(FIRST, source, target)
    assert torch.equal(result.weight[:6, 6:], old)  # 2·2 inputs and 2 coordinates, the last of 5·2 + 2
    assert torch.equal(result.weight[6:], fresh[6:])
    assert torch.equal(result.weight[:6, :6], fresh[:6, :6])
    second, old, fresh = adapted("patch_embed.proj.2.weight", source, target)
    assert torch.equal(second.weight[:, :6], old)
    assert torch.equal(second.weight[:, 6:], fresh[:, 6:])


def test_a_longer_horizon_begins_as_the_last_frame_and_channels_keep_their_slots() -> None:
    source, target = fields_of(channels=2, horizon=2), fields_of(channels=3, horizon=3)
    for name in ("fc2.weight", "fc2.bias"):
        result, old, fresh = adapted(name, source, target)
        weight, old, fresh = result.weight.unflatten(0, (3, 3)), old.unflatten(0, (2, 2)), fresh.unflatten(0, (3, 3))
        assert torch.equal(weight[:2, :2], old)
        assert torch.equal(weight[2, :2], old[1])
        assert torch.equal(weight[:, 2], fresh[:, 2])
        assert result.how == "2 to 3 channels, horizon of 2 to 3 frames"


def test_means_and_deviations_keep_the_slots_of_their_channels() -> None:
    result, old, fresh = adapted("scale_feats.weight", fields_of(2), fields_of(3))
    assert torch.equal(result.weight[:, [0, 1, 3, 4]], old)
    assert torch.equal(result.weight[:, [2, 5]], fresh[:, [2, 5]])


def test_classes_stay_with_their_datasets() -> None:
    source = attrs.evolve(fields_of(), datasets=("swe", "dr"))
    target = attrs.evolve(fields_of(), datasets=("dr", "burgers"))
    result, old, fresh = adapted("cls_head.4.weight", source, target)
    assert torch.equal(result.weight, torch.stack([old[1], fresh[1]]))
    assert result.how == "1 of 2 datasets known"
    unknown = attrs.evolve(target, datasets=("burgers", "darcy"))
    assert adapted_weight(SMALL, "cls_head.4.weight", fresh, source, unknown, {"cls_head.4.weight": old}) is None


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_more_modes_change_nothing_of_what_was_trained_and_fewer_keep_the_low_ones(axes: int) -> None:
    few, many = FNO(width=8, depth=1, modes=(2, 3, 4)[:axes]), FNO(width=8, depth=1, modes=(3, 4, 5)[:axes])
    fields = fields_of(grid=(10, 9, 8)[:axes])
    torch.manual_seed(0)
    narrow, wide = few.build(fields).spectral_convs[0], many.build(fields).spectral_convs[0]
    z = torch.randn(2, *fields.grid, 8)
    name, weight, fresh = "spectral_convs.0.weight", narrow.weight.detach(), wide.weight.detach()
    there = adapted_weight(many, name, fresh.clone(), fields, fields, {name: weight})
    assert there is not None
    assert there.how.startswith("modes 2")
    back = adapted_weight(few, name, weight.clone().zero_(), fields, fields, {name: there.weight})
    assert back is not None
    assert torch.equal(back.weight, weight)
    fresh.copy_(there.weight)
    pointwise = Pointwise(8, 8, axes)
    sums = [layer(z, ModeTransform(fields.grid, layer.modes)(z), pointwise) for layer in (wide, narrow)]
    assert difference(*sums) <= 1e-6


def test_point_layers_of_a_plane_go_into_space_but_modes_and_other_widths_do_not() -> None:
    plane, space = fields_of(grid=(8, 8)), fields_of(grid=(8, 8, 8))
    result, old, _ = adapted("convs.0.weight", plane, space)
    assert torch.equal(result.weight.flatten(1), old.flatten(1))
    first, old, fresh = adapted(FIRST, plane, space)
    assert torch.equal(first.weight.flatten(1)[:-1, :-1], old.flatten(1))
    assert torch.equal(first.weight.flatten(1)[:, -1], fresh.flatten(1)[:, -1])
    old, new = SMALL.build(plane).state_dict(), SMALL.build(space).state_dict()
    name = "spectral_convs.0.weight"
    assert adapted_weight(SMALL, name, new[name], plane, space, old) is None
    wide = attrs.evolve(SMALL, width=16).build(plane).state_dict()
    narrow = SMALL.build(plane).state_dict()
    for name in (
        "spectral_convs.0.weight",
        "patch_embed.proj.2.weight",
        "fc2.weight",
        "scale_feats.weight",
        "cls_head.4.weight",
    ):
        assert adapted_weight(SMALL, name, narrow[name], plane, plane, wide) is None, name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("told", [True, False])
def test_a_published_state_dict_is_recognised_and_predicts_the_same(case: str, told: bool) -> None:
    weights, tensors, settings = golden(case)
    result = FNO.from_published(settings if told else {}, weights)
    assert result is not None
    assert result.fields.grid == ((32, 32) if told else (128, 128))
    assert (result.fields.history, result.fields.horizon, len(result.fields.channels)) == (5, 1, 2)
    if not told:
        expected = {"channels", "grid"} if settings["normalize"] else {"channels", "grid", "horizon"}
        assert result.assumed.keys() == expected
    assert result.mapped.keys() == weights.keys()
    network = result.backbone.build(attrs.evolve(result.fields, grid=(32, 32)))
    network.load_state_dict(dict(result.weights))
    assert difference(network(ours(tensors["input"])).field, ours(tensors["output"])) <= 1e-5


def test_arguments_that_contradict_a_published_file_are_named() -> None:
    weights, _, settings = golden("fno2d")
    for name, value in {"modes1": 7, "n_layers": 4, "use_ln": False, "in_timesteps": 10, "patch_size": 8}.items():
        with pytest.raises(ConfigError, match=f"{name} = {value}"):
            FNO.from_published({**settings, name: value}, weights)
    with pytest.raises(ConfigError, match="10 inputs and 2 outputs of a point cannot be frames of 3 channels"):
        FNO.from_published({**settings, "n_channels": 3}, weights)
    with pytest.raises(ConfigError, match="extra has no place"):
        FNO.from_published(settings, {**weights, "extra": torch.zeros(1)})


def test_a_classification_head_without_classes_is_left_out_and_said_to_be() -> None:
    weights, _, settings = golden("fno2d")
    empty = {"cls_head.4.weight": torch.zeros(0, 16), "cls_head.4.bias": torch.zeros(0)}
    result = FNO.from_published({**settings, "n_cls": 0}, {**weights, **empty})
    assert result is not None
    assert not any(name.startswith("cls_head.") for name in result.weights)
    assert "without classes" in result.mapped["cls_head.4.bias"]


def test_weights_of_other_networks_are_not_recognised() -> None:
    weights: Mapping[str, Tensor] = DPOT(width=16, depth=1, heads=2, patch=4).build(fields_of()).state_dict()
    assert FNO.from_published({}, weights) is None
    assert FNO.from_published({}, {}) is None
