"""The FNO network computes what the published one does in two dimensions, and the same mathematics in any number."""

from __future__ import annotations

import json
import math
from itertools import product
from typing import Any

import attrs
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from opframe.layers.dense import Pointwise
from opframe_fno import FNO
from opframe_fno.published import modes_first
from opframe_fno.spectral import ModeTransform, SpectralConvolution
from opframe_registry import Fields
from support import GOLDEN

CASES = ("fno2d", "fno2d_normalized")
GRIDS = [
    ((13,), (5,)),
    ((8,), (5,)),
    ((12, 9), (4, 3)),
    ((7, 8), (3, 5)),
    ((6, 4, 10), (3, 2, 4)),
    ((5, 6, 7), (1, 3, 2)),
]


def fields_of(channels: int = 2, grid: tuple[int, ...] = (16, 12), history: int = 3, horizon: int = 1) -> Fields:
    return Fields(channels=tuple("abcdefgh"[:channels]), grid=grid, history=history, horizon=horizon)


def golden(case: str) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Weights, other tensors, and the constructor's arguments of a golden file."""
    tensors = load_file(GOLDEN / f"{case}.safetensors")
    weights = {name.removeprefix("weights/"): value for name, value in tensors.items() if name.startswith("weights/")}
    return weights, tensors, json.loads((GOLDEN / f"{case}.json").read_text())["config"]


def published(case: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network with the weights of a golden file, and the file."""
    weights, tensors, settings = golden(case)
    result = FNO.from_published(settings, weights)
    assert result is not None
    network = result.backbone.build(attrs.evolve(result.fields, grid=(32, 32)))
    network.load_state_dict(dict(result.weights))
    return network, tensors


def ours(tensor: Tensor) -> Tensor:
    """(B, X, Y, T, C) -> (B, T, C, X, Y)."""
    return tensor.permute(0, 3, 4, 1, 2).contiguous()


def difference(value: Tensor, expected: Tensor) -> float:
    """Relative, or absolute where there is next to nothing to compare with."""
    size = float(expected.detach().norm())
    return float((value - expected).detach().norm()) / (size if size >= 1e-6 else 1.0)


def inputs_of(fields: Fields, samples: int = 2) -> Tensor:
    return torch.randn(samples, fields.history, len(fields.channels), *fields.grid)


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_those_of_the_published_network(case: str) -> None:
    network, tensors = published(case)
    inputs = ours(tensors["input"]).requires_grad_()
    prediction = network(inputs)
    assert difference(prediction.field, ours(tensors["output"])) <= 1e-5
    assert difference(prediction.class_logits, tensors["class_logits"]) <= 1e-5
    (prediction.field * ours(tensors["probe"])).sum().backward()
    assert inputs.grad is not None
    assert difference(inputs.grad, ours(tensors["grad/input"])) <= 1e-4
    gradients = {name.removeprefix("grad/"): value for name, value in tensors.items() if name.startswith("grad/")}
    expected = modes_first(gradients)
    for name, weight in network.named_parameters():
        if not name.startswith("cls_head."):
            assert weight.grad is not None, name
            assert difference(weight.grad, expected[name]) <= 1e-4, name


@pytest.mark.parametrize("case", CASES)
def test_the_parameters_have_the_published_names_and_shapes_but_modes_come_first(case: str) -> None:
    network, _ = published(case)
    weights, _, settings = golden(case)
    width, modes = settings["width"], (settings["modes1"], settings["modes2"])
    shapes = {name: value.shape for name, value in weights.items() if "weights" not in name}
    shapes |= {f"spectral_convs.{n}.weight": (2, *modes, 2 * width, width) for n in range(settings["n_layers"])}
    assert {name: value.shape for name, value in network.state_dict().items()} == shapes
    assert all(value.is_contiguous() for value in network.state_dict().values())


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_autocast_stays_close_to_float32(case: str) -> None:
    network, tensors = published(case)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = network(ours(tensors["input"])).field
    assert output.dtype == torch.float32
    assert difference(output, ours(tensors["output"])) <= 2e-2


class Layer(nn.Module):
    """A spectral convolution on one grid, with its pointwise layer."""

    def __init__(self, width: int, grid: tuple[int, ...], modes: tuple[int, ...]) -> None:
        super().__init__()
        self.spectral, self.transform = SpectralConvolution(width, modes), ModeTransform(grid, modes)
        self.pointwise = Pointwise(width, width, len(grid))

    def forward(self, z: Tensor) -> Tensor:
        return self.spectral(z, self.transform(z), self.pointwise)


def alone(layer: Layer) -> Layer:
    """Without its pointwise layer."""
    for weight in layer.pointwise.parameters():
        nn.init.zeros_(weight)
    return layer


def test_the_spectral_convolution_keeps_its_precision_under_autocast() -> None:
    torch.manual_seed(0)
    layer, z = Layer(8, (8, 10), (3, 4)), torch.randn(2, 8, 10, 8, requires_grad=True)
    gradients = []
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            sums = layer(z)
        gradients.append([sums, *torch.autograd.grad(sums.square().sum(), [z, *layer.parameters()])])
    assert all(torch.equal(mixed, full) for mixed, full in zip(*gradients, strict=True))


def convolution_by_fft(layer: nn.Module, z: Tensor, modes: tuple[int, ...]) -> Tensor:
    """The spectral convolution as it is defined, (B, *grid, D) -> the same: a whole FFT, mode by mode."""
    axes = tuple(range(1, z.ndim - 1))
    spectrum = torch.fft.rfftn(z, dim=axes)
    mixed = torch.zeros_like(spectrum)
    for number, weight in enumerate(layer.get_parameter("weight")):
        signs = [number >> axis & 1 for axis in range(len(modes) - 1)]
        for index in product(*map(range, modes)):
            frequency = [k - kept * sign for k, kept, sign in zip(index, modes, [*signs, 0], strict=True)]
            at = (slice(None), *frequency)
            mixed[at] = spectrum[at] @ torch.complex(*weight[index].chunk(2))
    return torch.fft.irfftn(mixed, s=z.shape[1:-1], dim=axes)


@pytest.mark.parametrize(("grid", "modes"), GRIDS)
def test_a_layer_is_the_one_by_fft_on_any_grid(grid: tuple[int, ...], modes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = Layer(4, grid, modes).double()
    for weight in layer.parameters():
        nn.init.normal_(weight)
    z = torch.randn(3, *grid, 4, dtype=torch.float64, requires_grad=True)
    probe = torch.randn_like(z)
    tensors = [z, *layer.parameters()]
    pointwise = functional.linear(z, layer.pointwise.weight.flatten(1), layer.pointwise.bias)
    found, expected = layer(z), convolution_by_fft(layer.spectral, z, modes) + pointwise
    assert difference(found, expected) <= 1e-6
    gradients = [torch.autograd.grad((output * probe).sum(), tensors) for output in (found, expected)]
    for gradient, right in zip(*gradients, strict=True):
        assert difference(gradient, right) <= 1e-6


def network_by_fft(network: nn.Module, u: Tensor, modes: tuple[int, ...]) -> Tensor:
    """The network as the papers define it, of its own weights: every coordinate an input, the convolutions by FFT."""
    weights, grid = network.state_dict(), u.shape[3:]

    def dense(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"].flatten(1), weights[f"{name}.bias"])

    lines = [torch.linspace(0, 1, points, dtype=u.dtype) for points in grid]
    places = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).expand(len(u), *grid, len(grid))
    x = torch.cat([u.flatten(1, 2).movedim(1, -1), places], -1)
    z = dense("patch_embed.proj.2", functional.gelu(dense("patch_embed.proj.0", x)))
    for index, layer in enumerate(network.spectral_convs):
        z = functional.gelu(convolution_by_fft(layer, z, modes) + dense(f"convs.{index}", z))
        norm = [weights[f"ln_layers.{index}.{name}"] for name in ("weight", "bias")]
        z = functional.group_norm(z.movedim(-1, 1), 4, *norm).movedim(1, -1)
    points = dense("fc2", functional.gelu(dense("fc1", z)))
    return points.unflatten(-1, (-1, u.shape[2])).movedim((-2, -1), (1, 2))


@pytest.mark.parametrize(("grid", "modes"), GRIDS[::2])
def test_the_network_is_the_one_of_the_papers_in_one_two_and_three_dimensions(
    grid: tuple[int, ...], modes: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    fields = fields_of(grid=grid, horizon=2)
    network = FNO(width=8, depth=2, modes=modes).build(fields).double()
    for name, weight in network.named_parameters():
        if name.startswith(("spectral_convs", "ln_layers")):
            nn.init.normal_(weight)
    inputs = inputs_of(fields).double()
    prediction = network(inputs)
    assert prediction.class_logits is None
    assert prediction.field.shape == (2, 2, 2, *grid)
    assert difference(prediction.field, network_by_fft(network, inputs, modes)) <= 1e-6


def smooth(grid: tuple[int, ...], highest: int) -> Tensor:
    """The same real fields on any grid, (2, *grid, 4), without frequencies above `highest`."""
    generator = torch.Generator().manual_seed(0)
    lines = [torch.arange(points, dtype=torch.float64) / points for points in grid]
    places = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)
    frequencies = torch.randint(-highest, highest + 1, (20, len(grid)), generator=generator).double()
    phases = 2 * math.pi * torch.rand(20, 2, 4, generator=generator, dtype=torch.float64)
    waves = torch.cos(2 * math.pi * (places @ frequencies.T)[..., None, None] + phases)  # (*grid, 20, 2, 4)
    return waves.sum(-3).movedim(-2, 0)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_finer_grid_sees_the_same_convolution_of_a_smooth_field(axes: int) -> None:
    torch.manual_seed(0)
    points, modes = {1: 32, 2: 32, 3: 12}[axes], (5,) * axes
    coarse, fine = (alone(Layer(4, (points * factor,) * axes, modes)).double() for factor in (1, 2))
    fine.load_state_dict(coarse.state_dict())
    shared = (slice(None), *[slice(None, None, 2)] * axes)
    with torch.no_grad():
        expected = coarse(smooth((points,) * axes, 5))
        assert difference(fine(smooth((2 * points,) * axes, 5))[shared], expected) <= 1e-6
        assert float(expected.norm()) > 1


def test_frequencies_beyond_the_modes_do_not_pass() -> None:
    x, y = torch.meshgrid(torch.arange(16) / 16, torch.arange(12) / 12, indexing="ij")
    layer = alone(Layer(1, (16, 12), (3, 4)))

    def passed(kx: int, ky: int) -> float:
        """The largest value of what comes out for a wave; it is also one of the opposite frequencies."""
        return float(layer(torch.cos(2 * math.pi * (kx * x + ky * y))[None, ..., None]).detach().abs().max())

    assert all(passed(*wave) <= 1e-6 for wave in [(3, 1), (-4, 2), (0, 4), (2, -4), (4, 0)])
    assert all(passed(*wave) > 1e-2 for wave in [(2, 1), (-3, 3), (0, 3), (2, -3), (3, 0)])


@pytest.mark.parametrize("grid", [(32, 32), (12, 21)])
def test_on_another_grid_a_network_is_the_one_made_for_it(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    backbone, fields = FNO(width=8, depth=2, modes=6), fields_of(grid=grid)
    network, same = backbone.build(fields_of(grid=(64, 64))), backbone.build(fields)
    same.load_state_dict(network.state_dict())
    inputs = inputs_of(fields)
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(network.to(dtype)(inputs.to(dtype)).field, same.to(dtype)(inputs.to(dtype)).field)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("grid", [(20,), (12, 8), (8, 9, 8)])
def test_samples_do_not_mix_and_any_precision_works(grid: tuple[int, ...], normalize: bool) -> None:
    torch.manual_seed(0)
    fields = fields_of(grid=grid, horizon=3)
    network = FNO(width=8, depth=2, modes=4, normalize=normalize, classes=2).build(fields).eval()
    inputs = inputs_of(fields, samples=3)
    together = network(inputs)
    assert together.field.shape == (3, 3, 2, *grid)
    alone = [network(sample[None]) for sample in inputs]
    assert difference(torch.cat([one.field for one in alone]), together.field) <= 1e-5
    assert difference(torch.cat([one.class_logits for one in alone]), together.class_logits) <= 1e-5
    in_double = network.double()(inputs.double()).field
    assert in_double.dtype == torch.float64
    assert difference(together.field.double(), in_double) <= 1e-5


def test_a_training_step_compiles_to_one_graph_with_the_same_gradients() -> None:
    torch.manual_seed(0)
    fields = fields_of(grid=(8, 8))
    network = FNO(width=8, depth=1, modes=3, normalize=True, classes=2).build(fields)
    inputs = inputs_of(fields)
    gradients = []
    for step in (torch.compile(network, backend="aot_eager", fullgraph=True), network):
        network.zero_grad()
        prediction = step(inputs)
        (prediction.field.square().sum() + prediction.class_logits.square().sum()).backward()
        gradients.append({name: weight.grad for name, weight in network.named_parameters()})
    for name, gradient in gradients[1].items():
        assert difference(gradients[0][name], gradient) <= 1e-5, name
