"""The DPOT network computes what the published one does, on any grid of whole patches."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from opframe_dpot import DPOT
from opframe_dpot.fourier import FourierAttention
from opframe_dpot.layers import PatchConvolution, PatchExpansion
from opframe_registry import ConfigError, Fields
from support import GOLDEN

CASES = ("dpot_all_modes", "dpot_truncated_modes_normalized_bundle2")
KEYS = {
    "embed_dim": "width",
    "depth": "depth",
    "n_blocks": "heads",
    "patch_size": "patch",
    "modes": "modes",
    "mlp_ratio": "mlp_ratio",
    "out_layer_dim": "output_width",
    "normalize": "normalize",
    "time_agg": "time_aggregation",
}


def grid_of(channels: int, x: int, y: int, history: int = 4, horizon: int = 1) -> Fields:
    return Fields(channels=tuple("abcdefgh"[:channels]), grid=(x, y), history=history, horizon=horizon)


def published(case: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network with the weights of a golden file, and the file."""
    golden = load_file(GOLDEN / f"{case}.safetensors")
    settings: dict[str, Any] = json.loads((GOLDEN / f"{case}.json").read_text())["config"]
    fields = grid_of(settings["in_channels"], 32, 32, settings["in_timesteps"], settings["out_timesteps"])
    network = DPOT(**{ours: settings[theirs] for theirs, ours in KEYS.items()}).build(fields)
    weights = {name.removeprefix("weights/"): value for name, value in golden.items() if name.startswith("weights/")}
    network.load_state_dict({name: value for name, value in weights.items() if not name.startswith("cls_head.")})
    return network, golden


def ours(tensor: Tensor) -> Tensor:
    """(B, X, Y, T, C) -> (B, T, C, X, Y)."""
    return tensor.permute(0, 3, 4, 1, 2).contiguous()


def difference(value: Tensor, expected: Tensor) -> float:
    """Relative, or absolute where there is next to nothing to compare with."""
    size = float(expected.norm())
    return float((value - expected).norm()) / (size if size >= 1e-6 else 1.0)


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_those_of_the_published_network(case: str) -> None:
    network, golden = published(case)
    inputs = ours(golden["input"]).requires_grad_()
    output = network(inputs).field
    assert difference(output.detach(), ours(golden["output"])) <= 1e-5
    (output * ours(golden["probe"])).sum().backward()
    assert inputs.grad is not None
    assert difference(inputs.grad, ours(golden["grad/input"])) <= 1e-4
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert difference(weight.grad, golden[f"grad/{name}"]) <= 1e-4, name


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_autocast_stays_close_to_float32(case: str) -> None:
    network, golden = published(case)
    inputs = ours(golden["input"])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = network(inputs).field
    assert output.dtype == torch.float32
    assert difference(output, ours(golden["output"])) <= 2e-2


def test_the_parameters_have_the_published_names_and_shapes() -> None:
    network, golden = published("dpot_all_modes")
    shapes = {name.removeprefix("weights/"): value.shape for name, value in golden.items() if "weights/" in name}
    kept = {name: shape for name, shape in shapes.items() if not name.startswith("cls_head.")}
    assert {name: value.shape for name, value in network.state_dict().items()} == kept


@pytest.mark.parametrize(("grid", "modes"), [((6, 10), 32), ((5, 7), 32), ((8, 8), 3), ((1, 4), 2), ((12, 4), 3)])
def test_fourier_attention_is_the_complex_perceptron_on_the_kept_corner(grid: tuple[int, int], modes: int) -> None:
    torch.manual_seed(0)
    attention = FourierAttention(16, 4, grid, modes).double()
    for weight in attention.parameters():
        nn.init.normal_(weight)
    z = torch.randn(3, *grid, 16, dtype=torch.float64)
    spectrum = torch.fft.rfft2(z, dim=(1, 2), norm="ortho")[:, :modes, :modes].unflatten(-1, (4, 4))
    weights = (attention.w1, attention.b1, attention.w2, attention.b2)
    w1, b1, w2, b2 = (torch.view_as_complex(weight.movedim(0, -1).contiguous()) for weight in weights)
    hidden = torch.einsum("bklhe,hef->bklhf", spectrum, w1) + b1
    hidden = torch.complex(nn.functional.gelu(hidden.real), nn.functional.gelu(hidden.imag))
    mixed = torch.einsum("bklhe,hef->bklhf", hidden, w2) + b2
    full = torch.zeros(3, grid[0], grid[1] // 2 + 1, 16, dtype=torch.complex128)
    full[:, :modes, :modes] = mixed.flatten(-2)
    expected = torch.fft.irfft2(full, s=grid, dim=(1, 2), norm="ortho")
    assert difference(attention(z).detach(), expected.detach()) <= 1e-6


def test_patch_convolution_is_a_convolution_with_coordinate_channels() -> None:
    torch.manual_seed(0)
    layer = PatchConvolution(2, 7, 3).double()
    u = torch.randn(2, 4, 2, 6, 9, dtype=torch.float64)
    axes = [torch.linspace(0, 1, points, dtype=torch.float64) for points in (6, 9, 4)]
    x, y, t = torch.meshgrid(*axes, indexing="ij")
    coordinates = torch.stack([x, y, t]).permute(3, 0, 1, 2).expand(2, 4, 3, 6, 9)
    frames = torch.cat([u, coordinates], dim=2).flatten(0, 1)
    expected = nn.functional.conv2d(frames, layer.weight, layer.bias, stride=3)  # (B·T, O, X', Y')
    assert difference(layer(u).detach(), expected.unflatten(0, (2, 4)).permute(0, 3, 4, 1, 2).detach()) <= 1e-12


def test_patch_expansion_is_a_transposed_convolution() -> None:
    torch.manual_seed(0)
    layer = PatchExpansion(6, 5, 3).double()
    z = torch.randn(2, 4, 2, 6, dtype=torch.float64)
    expected = nn.functional.conv_transpose2d(z.permute(0, 3, 1, 2), layer.weight, layer.bias, stride=3)
    points = layer(z).unflatten(3, (3, 3)).permute(0, 5, 1, 3, 2, 4).reshape(2, 5, 12, 6)
    assert difference(points.detach(), expected.detach()) <= 1e-12


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("fields", [grid_of(2, 24, 8), grid_of(1, 4, 20, history=1, horizon=3)])
def test_any_grid_of_whole_patches_works_and_samples_do_not_mix(fields: Fields, normalize: bool) -> None:
    torch.manual_seed(0)
    network = DPOT(width=16, depth=2, heads=2, patch=4, normalize=normalize).build(fields)
    inputs = torch.randn(3, fields.history, len(fields.channels), *fields.grid)
    together = network(inputs).field
    assert together.shape == (3, fields.horizon, len(fields.channels), *fields.grid)
    alone = torch.cat([network(sample[None]).field for sample in inputs])
    assert difference(together.detach(), alone.detach()) <= 1e-5


def test_normalisation_makes_predictions_follow_a_change_of_units() -> None:
    torch.manual_seed(0)
    network = DPOT(width=16, depth=1, heads=2, patch=4, normalize=True).build(grid_of(2, 8, 8))
    nn.init.zeros_(network.scale_feats_mu.weight)
    nn.init.zeros_(network.scale_feats_sigma.weight)
    inputs = torch.randn(2, 4, 2, 8, 8)
    scaled = network(100 * inputs + 7).field
    assert difference(scaled.detach(), (100 * network(inputs).field + 7).detach()) <= 1e-4


def test_the_computation_compiles_to_one_graph() -> None:
    graphs = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    network = DPOT(width=16, depth=2, heads=2, patch=4, normalize=True).build(grid_of(2, 8, 8))
    inputs = torch.randn(2, 4, 2, 8, 8)
    compiled = torch.compile(network, backend=count, fullgraph=True)(inputs).field
    assert len(graphs) == 1
    assert torch.equal(compiled, network(inputs).field)


def test_fresh_weights_are_distributed_as_published() -> None:
    torch.manual_seed(0)
    network = DPOT(width=64, depth=1, heads=4, patch=4).build(grid_of(2, 32, 32, history=5))
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    assert torch.allclose(weights["time_agg_layer.gamma"], 2 ** torch.linspace(-10, 10, 64)[None])
    assert float(weights["time_agg_layer.w"].std()) == pytest.approx(1 / (5 * math.sqrt(64)), rel=0.05)
    assert float(weights["pos_embed"].std()) == pytest.approx(0.02, rel=0.05)
    for name in ("w1", "w2", "b1", "b2"):
        weight = weights[f"blocks.0.filter.{name}"] * 16**2
        assert 0 <= float(weight.min()) < 0.1
        assert 0.9 < float(weight.max()) < 1


@pytest.mark.parametrize(
    ("size", "millions"), [("tiny", 7.5), ("small", 30.8), ("medium", 122), ("large", 509), ("huge", 1031)]
)
def test_presets_have_the_published_number_of_weights(size: str, millions: float) -> None:
    settings = DPOT(size=size, **DPOT.presets[size])
    with torch.device("meta"):
        network = settings.build(grid_of(4, 128, 128, history=10))
        head = nn.Sequential(*(nn.Linear(settings.width, n) for n in (settings.width, settings.width, 12)))
    count = sum(weight.numel() for module in (network, head) for weight in module.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.006)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 20, "heads": 2}, ("width = 20", "multiple of 8", "such as 16")),
        ({"width": 32, "heads": 3}, ("heads = 3", "width = 32", "1, 2, 4, 8, 16, 32")),
        ({"width": 8, "mlp_ratio": 0.1}, ("mlp_ratio = 0.1", "width = 8")),
        ({"size": "giant"}, ("'giant'", "tiny")),
        ({"depth": 0}, ("depth",)),
        ({"time_aggregation": "sum"}, ("time_aggregation", "exp_mlp")),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below
        DPOT(**settings)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_patch_that_does_not_divide_the_grid_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"patch = 8 .* grid 64×60; set patch to one of 1, 2, 4,"):
        DPOT(patch=8).build(grid_of(1, 64, 60))


@pytest.mark.parametrize("grid", [(64,), (16, 16, 16)])
def test_a_grid_that_is_not_two_dimensional_is_refused(grid: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="2-D"):
        DPOT().build(Fields(channels=("u",), grid=grid, history=4))
