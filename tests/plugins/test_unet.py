"""The U-Net is that of PDEBench and PDEArena, in any number of dimensions and on any grid."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from opframe_registry import ConfigError, Fields
from opframe_unet import UNet
from support import adapted_weight

MADE_BEFORE = Path(__file__).parents[1] / "made_before" / "unet"


def fields_of(
    grid: tuple[int, ...] = (16, 24), channels: int = 2, history: int = 4, horizon: int = 1, **others: Any
) -> Fields:
    return Fields(channels=tuple("abcdefgh"[:channels]), grid=grid, history=history, horizon=horizon, **others)


def preset(size: str, **keys: Any) -> UNet:
    return UNet(size=size, **{**UNet.presets[size], **keys})


def inputs_for(fields: Fields, samples: int = 2) -> Tensor:
    return torch.randn(samples, fields.history, len(fields.channels), *fields.grid)


def published(weights: dict[str, Tensor], x: Tensor, levels: int, training: bool) -> Tensor:
    """The network of PDEBench in two dimensions, (B, T·C, X, Y) -> (B, S·C, X, Y), in torch's functions."""

    def twice(place: str, x: Tensor) -> Tensor:
        for layer in ("conv_0", "conv_1"):
            norm = {name: weights[f"{place}.{layer}.adn.N.{name}"] for name in ("weight", "bias")}
            means, variances = (weights[f"{place}.{layer}.adn.N.running_{name}"].clone() for name in ("mean", "var"))
            x = functional.conv2d(x, weights[f"{place}.{layer}.conv.weight"], padding=1)
            x = functional.batch_norm(x, means, variances, **norm, training=training).tanh()
        return x

    skips = [twice("encoder.0", x)]
    for level in range(1, levels + 1):
        skips.append(twice(f"encoder.{level}.convs", functional.max_pool2d(skips[-1], 2)))
    x = skips.pop()
    for level in range(levels):
        up = {name: weights[f"upsampling.{level}.deconv.{name}"] for name in ("weight", "bias")}
        x = twice(f"decoder.{level}", torch.cat([functional.conv_transpose2d(x, **up, stride=2), skips.pop()], 1))
    return functional.conv2d(x, weights["head.weight"], weights["head.bias"])


@pytest.mark.parametrize("training", [False, True])
def test_the_pdebench_preset_computes_what_pdebench_does(training: bool) -> None:
    torch.manual_seed(0)
    fields = fields_of((32, 16), horizon=2)
    network = preset("pdebench", width=4).build(fields)
    network(inputs_for(fields, 8) * 3 + 1)  # running statistics that are not 0 and 1
    network.train(training)
    inputs = inputs_for(fields).requires_grad_()
    expected = published(network.state_dict(), inputs.flatten(1, 2), levels=4, training=training)
    output = network(inputs).field.flatten(1, 2)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    probe = torch.randn_like(output)
    gradients = [torch.autograd.grad((frames * probe).sum(), inputs)[0] for frames in (output, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", ["1d", "2d", "2d_batch", "3d", "3d_batch"])
def test_weights_of_the_former_layers_load_and_a_seed_still_makes_them(case: str) -> None:
    made = load_file(MADE_BEFORE / f"{case}.safetensors")
    how = json.loads((MADE_BEFORE / f"{case}.json").read_text())
    torch.manual_seed(0)
    network = UNet(**how["settings"]).build(fields_of(**{**how["fields"], "channels": len(how["fields"]["channels"])}))
    state = {name.removeprefix("weights/"): tensor for name, tensor in made.items() if name.startswith("weights/")}
    for name, weight in network.named_parameters():
        torch.testing.assert_close(weight.detach(), state[name], rtol=0, atol=0)
    inputs = made["input"].clone().requires_grad_()
    trained = network.train()(inputs).field
    torch.testing.assert_close(trained, made["output_training"], rtol=1e-5, atol=1e-6)
    gradient = torch.autograd.grad((trained * made["probe"]).sum(), inputs)[0]
    torch.testing.assert_close(gradient, made["grad/input"], rtol=1e-4, atol=1e-5)
    for tensor in network.state_dict().values():
        tensor.zero_()
    network.load_state_dict(state)
    torch.testing.assert_close(network.eval()(inputs).field, made["output"], rtol=1e-5, atol=1e-6)


def test_the_pdearena_preset_has_the_published_size() -> None:
    with torch.device("meta"):
        network = preset("pdearena").build(fields_of((64, 64), channels=3, history=4))
    count = sum(weight.numel() for weight in network.parameters())
    assert 4 * count / 1e6 == pytest.approx(124.172, abs=0.0005)  # MB of Unet2015-64 in PDEArena's table of models


@pytest.mark.parametrize("grid", [(16,), (37,), (31, 50), (17, 16), (9, 8, 13)])
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_any_grid_of_one_two_or_three_axes_works(grid: tuple[int, ...], norm: Any) -> None:
    torch.manual_seed(0)
    fields = fields_of(grid, channels=3, history=2, horizon=2)
    network = UNet(width=4, levels=3, norm=norm).build(fields)
    assert network(inputs_for(fields, 3)).field.shape == (3, 2, 3, *grid)


def test_an_odd_grid_is_predicted_as_its_even_part_away_from_the_edge() -> None:
    torch.manual_seed(0)
    network = UNet(width=4, levels=1, norm="batch").build(fields_of((33,))).eval()
    inputs = inputs_for(fields_of((33,)))
    whole, part = network(inputs).field, network(inputs[..., :32]).field
    torch.testing.assert_close(whole[..., :24], part[..., :24])


def test_normalisation_makes_predictions_follow_a_change_of_units() -> None:
    torch.manual_seed(0)
    fields = fields_of()
    network = UNet(width=4, levels=2, normalize=True).build(fields).double()
    inputs = inputs_for(fields).double()
    units = torch.tensor([100.0, 3.0])[:, None, None]
    torch.testing.assert_close(network(units * inputs + 7).field, units * network(inputs).field + 7, rtol=0, atol=1e-3)


def test_a_constant_channel_is_predicted_with_finite_numbers() -> None:
    torch.manual_seed(0)
    fields = fields_of()
    network = UNet(width=4, levels=2, normalize=True).build(fields)
    inputs = inputs_for(fields)
    inputs[:, :, 1] = 1.0
    inputs.requires_grad_()
    field = network(inputs).field
    torch.testing.assert_close(field[:, :, 1], torch.ones_like(field[:, :, 1]), rtol=0, atol=1e-4)
    field.sum().backward()
    assert inputs.grad is not None
    assert bool(torch.isfinite(inputs.grad).all())


def transferred(source: Fields, target: Fields) -> tuple[nn.Module, nn.Module, dict[str, str]]:
    """A network, one for other fields with its weights, and how each of them was adapted."""
    settings = UNet(width=4, levels=2)
    torch.manual_seed(0)
    trained, network = settings.build(source), settings.build(target)
    old, state = trained.state_dict(), network.state_dict()
    how = {}
    for name, fresh in state.items():
        adapted = adapted_weight(settings, name, fresh.clone(), source, target, old)
        assert adapted is not None
        state[name], how[name] = adapted.weight, adapted.how
    network.load_state_dict(state)
    return trained, network, {name: words for name, words in how.items() if words}


def test_with_more_history_the_latest_frames_are_seen_as_before() -> None:
    source, target = fields_of(history=2), fields_of(history=5)
    trained, network, how = transferred(source, target)
    inputs = inputs_for(target)
    torch.testing.assert_close(network(inputs).field, trained(inputs[:, -2:]).field)
    assert how == {"encoder.0.conv_0.conv.weight": "history of 2 to 5 frames"}


def test_with_less_history_the_missing_frames_are_taken_to_be_the_earliest() -> None:
    source, target = fields_of(history=5), fields_of(history=2)
    trained, network, _ = transferred(source, target)
    inputs = inputs_for(target)
    before = torch.cat([inputs[:, :1].expand(-1, 3, -1, -1, -1), inputs], dim=1)
    torch.testing.assert_close(network(inputs).field, trained(before).field)


def test_with_more_channels_those_of_before_keep_their_places() -> None:
    source, target = fields_of(channels=2, horizon=2), fields_of(channels=4, horizon=1)  # both have four outputs
    trained, network, how = transferred(source, target)
    inputs = inputs_for(target)
    inputs[:, :, 2:] = 0
    torch.testing.assert_close(network(inputs).field[:, :, :2], trained(inputs[:, :, :2]).field[:, :1])
    assert how["encoder.0.conv_0.conv.weight"] == "2 to 4 channels"
    assert how["head.weight"] == how["head.bias"] == "2 to 4 channels, horizon of 2 to 1 frames"


def test_frames_beyond_the_trained_horizon_begin_as_the_last() -> None:
    source, target = fields_of(horizon=2), fields_of(horizon=4)
    trained, network, _ = transferred(source, target)
    inputs = inputs_for(target)
    torch.testing.assert_close(network(inputs).field, trained(inputs).field[:, [0, 1, 1, 1]])


def test_weights_of_another_width_or_number_of_axes_do_not_fit() -> None:
    source, target = fields_of(), fields_of((16, 16, 16))
    settings = UNet(width=4, levels=1)
    old, new = settings.build(source).state_dict(), settings.build(target).state_dict()
    wide = UNet(width=8, levels=1).build(source).state_dict()
    for name in ("encoder.0.conv_0.conv.weight", "encoder.1.convs.conv_0.conv.weight", "upsampling.0.deconv.weight"):
        assert adapted_weight(settings, name, new[name], source, target, old) is None
        assert adapted_weight(settings, name, old[name], source, source, wide) is None
    assert adapted_weight(settings, "head.weight", old["head.weight"], source, source, wide) is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 10}, ("width = 10", "multiple of 4", "such as 8")),
        ({"levels": 0}, ("levels",)),
        ({"norm": "layer"}, ("norm", "group")),
        ({"activation": "sine"}, ("activation", "gelu")),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below
        UNet(**settings)
    assert all(word in str(caught.value) for word in words), caught.value


def test_batch_norm_leaves_any_width() -> None:
    assert isinstance(UNet(width=10, levels=1, norm="batch").build(fields_of()), nn.Module)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ((64, 15), r"grid 64×15 cannot be halved levels = 4 times; set levels to at most 3"),
        ((1, 64), r"give every axis of data.grid more points"),
        ((4, 4, 4, 4), r"1-D, 2-D and 3-D grids, but the data's grid is 4×4×4×4"),
    ],
)
def test_a_grid_that_cannot_be_halved_so_often_is_refused(grid: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UNet().build(fields_of(grid))


def test_the_same_seed_makes_the_same_network_whether_the_library_was_imported_before_or_not() -> None:
    program = (
        "import warnings; warnings.simplefilter('error')\n"
        "import torch; from opframe_unet import UNet; from opframe_registry import Fields\n"
        "fields = Fields(channels=('u',), grid=(16, 16), history=2)\n"
        "def weights():\n"
        "    torch.manual_seed(0); return [*UNet(width=4).build(fields).parameters()]\n"
        "assert all(torch.equal(one, two) for one, two in zip(weights(), weights(), strict=True))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
