"""The straightforward networks of the benchmarks compute what the published ones and ours do."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from opframe_fno import FNO
from opframe_pot import DPOT, MoEPOT
from opframe_registry import Backbone, Fields
from support import GOLDEN, PUBLISHED_KEYS
from tests.reference import straightforward

NAMES = ["dpot_all_modes", "dpot_truncated_modes_normalized_bundle2", "moepot", "fno2d", "fno2d_normalized"]


def settings_of(name: str) -> tuple[Backbone, Fields]:
    """Our settings and fields for a golden file."""
    told: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())["config"]
    channels = told["n_channels"] if "n_channels" in told else told["in_channels"]
    fields = Fields(
        channels=tuple("abcdefgh"[:channels]),
        grid=(told["img_size"],) * 2,
        history=told["in_timesteps"],
        horizon=told["out_timesteps"],
    )
    if name.startswith("fno"):
        modes = (told["modes1"], told["modes2"])
        return FNO(
            width=told["width"],
            depth=told["n_layers"],
            modes=modes,
            group_norm=told["use_ln"],
            normalize=told["normalize"],
            classes=told["n_cls"],
        ), fields
    return (MoEPOT if name == "moepot" else DPOT)(
        **{ours: told[theirs] for theirs, ours in PUBLISHED_KEYS.items()}
    ), fields


def ours(tensor: Tensor) -> Tensor:
    """(B, X, Y, T, C) -> (B, T, C, X, Y)."""
    return tensor.permute(0, 3, 4, 1, 2).contiguous()


def difference(value: Tensor, expected: Tensor) -> float:
    size = float(expected.norm())
    return float((value - expected).norm()) / (size if size >= 1e-6 else 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_gradients_are_those_of_the_published_network(name: str) -> None:
    golden = load_file(GOLDEN / f"{name}.safetensors")
    network = straightforward(*settings_of(name)).eval()
    weights = {key.removeprefix("weights/"): value for key, value in golden.items() if key.startswith("weights/")}
    missing = network.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys
    assert all(key.endswith("temperature") for key in missing.missing_keys)
    inputs = ours(golden["input"]).requires_grad_()
    prediction = network(inputs)
    assert difference(prediction.field.detach(), ours(golden["output"])) <= 1e-5
    assert difference(prediction.class_logits.detach(), golden["class_logits"]) <= 1e-5
    (prediction.field * ours(golden["probe"])).sum().backward()
    assert inputs.grad is not None
    assert difference(inputs.grad, ours(golden["grad/input"])) <= 1e-4
    for key, weight in network.named_parameters():
        if not key.startswith("cls_head."):
            assert weight.grad is not None, key
            assert difference(weight.grad, golden[f"grad/{key}"]) <= 1e-4, key


@pytest.mark.parametrize("settings", [DPOT(width=16, heads=2), MoEPOT(width=16, heads=2), FNO(width=8, modes=(4,))])
def test_they_load_the_weights_of_our_networks_and_train_alike(settings: Backbone) -> None:
    torch.manual_seed(0)
    fields = Fields(channels=("u", "v"), grid=(16, 24), history=3, horizon=2)
    network, slow = settings.build(fields), straightforward(settings, fields)
    slow.load_state_dict(network.state_dict())
    u = torch.randn(4, 3, 2, 16, 24)
    for _ in range(2):  # the second pass of a router is colder
        expected, prediction = network(u), slow(u)
        assert difference(prediction.field.detach(), expected.field.detach()) <= 1e-5
        assert prediction.penalties.keys() == expected.penalties.keys()
        for name, value in expected.penalties.items():
            assert difference(prediction.penalties[name].detach(), value.detach()) <= 1e-4
