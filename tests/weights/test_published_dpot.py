"""A checkpoint of DPOT's authors becomes a network of ours, or it is said why it cannot."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from opframe_pot import DPOT
from opframe_registry import ConfigError, Fields, Published
from support import GOLDEN


def published_file() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Arguments and weights of the file in the published format."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(GOLDEN / "published_format_dpot.pth", weights_only=True)
    return vars(content["args"]), {name.removeprefix("module."): value for name, value in content["model"].items()}


def weights_of(case: str) -> dict[str, Tensor]:
    golden = load_file(GOLDEN / f"{case}.safetensors")
    return {name.removeprefix("weights/"): value for name, value in golden.items() if name.startswith("weights/")}


def read(arguments: dict[str, Any], weights: dict[str, Tensor]) -> Published:
    published = DPOT.from_published(arguments, weights)
    assert published is not None
    return published


def network_of(published: Published) -> nn.Module:
    network = published.backbone.build(published.fields)
    network.load_state_dict(published.weights)
    return network.eval()


def close(value: Tensor, expected: Tensor) -> bool:
    return bool((value - expected).norm() <= 1e-5 * expected.norm())


def check_outputs(published: Published, case: str) -> None:
    golden = load_file(GOLDEN / f"{case}.safetensors")
    with torch.no_grad():
        prediction = network_of(published)(golden["input"].movedim((-2, -1), (1, 2)))
    assert close(prediction.field, golden["output"].movedim((-2, -1), (1, 2)))
    if "class_logits" in golden:
        assert close(prediction.class_logits, golden["class_logits"])


def test_a_published_file_predicts_and_classifies_what_the_published_network_does() -> None:
    published = read(*published_file())
    check_outputs(published, "dpot_all_modes")
    settings = {"width": 32, "depth": 2, "heads": 4, "patch": 4, "modes": 32, "mlp_ratio": 2.0, "output_width": 16}
    assert published.backbone == DPOT(**settings, classes=5)
    assert published.fields == Fields(channels=("channel_0", "channel_1", "channel_2"), grid=(32, 32), history=6)
    assert published.mapped == dict.fromkeys(published_file()[1], "taken as it is")
    assert published.assumed == {
        "channels": "named channel_0 and so on, the file has no names",
        "modes": "32, the published default",
    }


def test_shapes_tell_normalisation_aggregation_and_horizon_and_arguments_tell_the_modes() -> None:
    case = "dpot_truncated_modes_normalized_bundle2"
    published = read({"modes": 3, "normalize": 1, "T_bundle": 2, "time_agg": "mlp", "res": 32}, weights_of(case))
    check_outputs(published, case)
    assert published.fields.horizon == 2
    assert "modes" not in published.assumed


def test_a_three_dimensional_file_is_read_without_the_head_that_its_network_does_not_use() -> None:
    weights = weights_of("dpot3d")
    published = read({"img_size": (16, 16, 16), "n_cls": 5}, weights)
    check_outputs(published, "dpot3d")
    assert published.backbone == DPOT(width=32, depth=1, patch=4, mlp_ratio=2.0, output_width=16)
    left_out = {name for name, fate in published.mapped.items() if fate != "taken as it is"}
    assert left_out == {name for name in weights if name.startswith("cls_head.")}
    assert published.mapped.keys() == weights.keys()


@pytest.mark.parametrize(("width", "hidden"), [(24, 1), (24, 7), (32, 128), (56, 61), (56, 115), (88, 15)])
def test_any_hidden_width_is_found_again(width: int, hidden: int) -> None:
    settings, fields = DPOT(width=width, heads=2, depth=1, patch=4), Fields(channels=("u",), grid=(4, 8), history=1)
    weights = settings.build(fields).state_dict()
    weights["blocks.0.mlp.0.weight"] = torch.zeros(hidden, width, 1, 1)
    found = read({}, weights).backbone
    assert isinstance(found, DPOT)
    assert found.hidden == hidden


def test_what_a_network_of_ours_saves_is_read_as_it_was_built() -> None:
    settings = DPOT(width=48, depth=3, heads=6, patch=2, output_width=5, mlp_ratio=0.75, normalize=True)
    for grid in ((4, 12), (4, 2, 6)):
        fields = Fields(channels=("channel_0", "channel_1"), grid=grid, history=1, horizon=3)
        published = read({}, settings.build(fields).state_dict())
        assert (published.backbone, published.fields) == (settings, fields)


def test_a_file_of_another_network_is_not_ours() -> None:
    _, weights = published_file()
    moepot = {name.replace(".mlp.", ".MoE.feature_extractor."): value for name, value in weights.items()}
    assert DPOT.from_published({}, moepot) is None
    assert DPOT.from_published({}, {"fc0.weight": torch.zeros(2, 2)}) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"width": 64, "n_layers": 3}, ("width = 64", "n_layers = 3", "32", "2")),
        ({"act": "relu"}, ("act = 'relu'", "only 'gelu'")),
        ({"in_channels": 3, "out_channels": 1}, ("out_channels = 1",)),
        ({"mlp_ratio": 4}, ("mlp_ratio = 4", "64/32")),
        ({"img_size": 64}, ("img_size = 64", "(32, 32)")),
        ({"time_agg": "mlp"}, ("time_agg = 'mlp'", "'exp_mlp'")),
        ({"normalize": True}, ("normalize = True", "False")),
    ],
)
def test_arguments_that_contradict_the_tensors_are_named(arguments: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        DPOT.from_published(arguments, published_file()[1])
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("patch_embed.proj.0.weight", torch.zeros(3 + 4, 6, 4, 4), "3 channels go in and 1 come out"),
        ("out_layer.4.weight", torch.zeros(4, 16, 1, 1), "4 outputs for each point cannot be frames of 3 channels"),
        ("blocks.0.adapter.weight", torch.zeros(2), "blocks.0.adapter.weight has no place in dpot"),
        ("pos_embed", None, "pos_embed is missing"),
    ],
)
def test_tensors_of_a_network_that_ours_is_not_are_named(name: str, tensor: Tensor | None, words: str) -> None:
    _, weights = published_file()
    changed = {key: value for key, value in {**weights, name: tensor}.items() if value is not None}
    with pytest.raises(ConfigError, match=words):
        DPOT.from_published({}, changed)
