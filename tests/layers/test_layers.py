"""The layers that backbones share are the convolutions and transforms they stand for, in any number of axes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from opframe.layers.dense import Pointwise, TokenNorm
from opframe.layers.derived import constant_weights, derived
from opframe.layers.scale import standardized
from opframe_pot import DPOT
from opframe_pot.attention import FourierAttention
from opframe_pot.folding import aggregated
from opframe_pot.patch_transformer import Mixed, PatchTransformer
from opframe_pot.patches import PatchConvolution, PatchExpansion, gather_patches, scatter_patches
from opframe_registry import Fields

GRIDS = [(6, 10), (5, 7), (1, 4), (12, 4), (7,), (8,), (4, 6, 5), (3, 1, 8), (2, 5, 6)]


def difference(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).detach().norm() / expected.detach().norm())


@pytest.mark.parametrize("modes", [32, 3, 1])
@pytest.mark.parametrize("grid", GRIDS)
def test_fourier_attention_is_the_complex_perceptron_on_the_kept_corner(grid: tuple[int, ...], modes: int) -> None:
    torch.manual_seed(0)
    attention = FourierAttention(16, 4, grid, modes).double()
    for weight in attention.parameters():
        nn.init.normal_(weight)
    axes = tuple(range(1, len(grid) + 1))
    corner = (slice(None), *[slice(modes)] * len(grid))
    z = torch.randn(3, *grid, 16, dtype=torch.float64)
    spectrum = torch.fft.rfftn(z, dim=axes, norm="ortho")
    weights = (attention.w1, attention.b1, attention.w2, attention.b2)
    w1, b1, w2, b2 = (torch.view_as_complex(weight.movedim(0, -1).contiguous()) for weight in weights)
    hidden = torch.einsum("b...he,hef->b...hf", spectrum[corner].unflatten(-1, (4, 4)), w1) + b1
    hidden = torch.complex(nn.functional.gelu(hidden.real), nn.functional.gelu(hidden.imag))
    full = torch.zeros_like(spectrum)
    full[corner] = (torch.einsum("b...he,hef->b...hf", hidden, w2) + b2).flatten(-2)
    expected = torch.fft.irfftn(full, s=grid, dim=axes, norm="ortho")
    assert difference(attention(z), expected) <= 1e-6


def test_attention_on_a_grid_that_came_in_inference_mode_can_be_trained_and_changed() -> None:
    torch.manual_seed(0)
    attention, expected = FourierAttention(16, 4, (4, 4), 3), FourierAttention(16, 4, (6, 5), 3)
    expected.load_state_dict(attention.state_dict())
    z = torch.randn(2, 6, 5, 16)
    with torch.inference_mode():
        attention(z)
    attention(z).sum().backward()
    for same in (attention, copy.deepcopy(attention), pickle.loads(pickle.dumps(attention))):
        assert torch.equal(same(z), expected(z))
        assert same.state_dict().keys() == {"w1", "w2", "b1", "b2"}
    assert torch.equal(attention.double()(z.double()), expected.double()(z.double()))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_patch_convolution_is_a_convolution_with_coordinate_channels(axes: int) -> None:
    torch.manual_seed(0)
    grid = (6, 9, 3)[:axes]
    layer = PatchConvolution(2, 7, 3, axes).double()
    u = torch.randn(2, 4, 2, *grid, dtype=torch.float64)
    steps = [torch.linspace(0, 1, points, dtype=torch.float64) for points in (*grid, 4)]
    coordinates = torch.stack(torch.meshgrid(*steps, indexing="ij")).movedim(-1, 0)  # (T, N + 1, *grid)
    frames = torch.cat([u, coordinates.expand(2, *coordinates.shape)], dim=2).flatten(0, 1)
    convolution = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[axes - 1]
    expected = convolution(frames, layer.weight, layer.bias, stride=3).unflatten(0, (2, 4))  # (B, T, O, *patches)
    assert difference(layer(u), expected.movedim((1, 2), (-2, -1))) <= 1e-12


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_patch_expansion_is_a_transposed_convolution(axes: int) -> None:
    torch.manual_seed(0)
    layer = PatchExpansion(6, 5, 3, axes).double()
    z = torch.randn(2, *(4, 2, 3)[:axes], 6, dtype=torch.float64)
    convolution = (nn.functional.conv_transpose1d, nn.functional.conv_transpose2d, nn.functional.conv_transpose3d)
    expected = convolution[axes - 1](z.movedim(-1, 1), layer.weight, layer.bias, stride=3)
    assert difference(scatter_patches(layer(z), 3, 1)[:, 0], expected) <= 1e-12


@pytest.mark.parametrize("grid", [(6,), (6, 4), (4, 2, 6)])
def test_patches_are_put_back_where_they_came_from(grid: tuple[int, ...]) -> None:
    u = torch.randn(2, 3, 5, *grid)  # (B, T, C, *grid)
    points = 2 ** len(grid)
    rows = gather_patches(u, 2).unflatten(-1, (5, points))  # (B, *patches, T, C, P·P)
    assert torch.equal(scatter_patches(rows.movedim(-1, -3).flatten(-2), 2, 3), u)


@pytest.mark.parametrize("grid", [(4, 5), (2, 4, 5)])
def test_dense_layers_and_norms_are_those_of_torch_on_channels_last_tokens(grid: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    z = torch.randn(2, *grid, 16)
    pointwise, norm = Pointwise(16, 3, len(grid)), TokenNorm(8, 16)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    reference = nn.GroupNorm(8, 16)
    reference.load_state_dict(norm.state_dict())
    assert pointwise.weight.shape == (3, 16, *[1] * len(grid))
    expected = nn.functional.linear(z, pointwise.weight.flatten(1), pointwise.bias)
    assert difference(pointwise(z), expected) <= 1e-6
    assert torch.equal(norm(z), reference(z.movedim(-1, 1)).movedim(1, -1))


class Counting(nn.Module):
    """A block with penalties: it leaves the tokens alone."""

    def __init__(self, penalties: dict[str, float]) -> None:
        super().__init__()
        self.penalties = penalties

    def forward(self, z: Tensor) -> Mixed:
        return Mixed(tokens=z, penalties={name: torch.tensor(value) for name, value in self.penalties.items()})


def test_penalties_of_one_name_are_summed_over_blocks() -> None:
    blocks = [Counting({"balance": 1.0}), Counting({"balance": 2.0, "size": 5.0}), Counting({})]
    fields = Fields(channels=("u",), grid=(4, 4), history=2)
    network = PatchTransformer(DPOT(width=8, heads=1, patch=2), fields, blocks)
    penalties = network(torch.randn(1, 2, 1, 4, 4)).penalties
    assert {name: float(value) for name, value in penalties.items()} == {"balance": 3.0, "size": 5.0}


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_without_blocks_a_patch_is_predicted_from_itself_alone(axes: int) -> None:
    torch.manual_seed(0)
    fields = Fields(channels=("u", "v"), grid=(4, 6, 8)[:axes], history=2, horizon=3)
    network = PatchTransformer(DPOT(width=8, heads=1, patch=2), fields, [])
    u = torch.randn(1, 2, 2, *fields.grid)
    patch = (..., *[slice(2, 4)] * axes)
    changed = u.clone()
    changed[patch] += 1
    moved = (network(changed).field - network(u).field).abs() > 0
    assert moved[patch].all()
    assert moved.sum() == moved[patch].numel()


def patch_transformer(grid: tuple[int, ...] = (4, 4)) -> PatchTransformer:
    fields = Fields(channels=("u",), grid=grid, history=2)
    return PatchTransformer(DPOT(width=8, heads=1, patch=2), fields, [])


@torch.no_grad()
def test_what_is_derived_from_weights_is_made_once_within_constant_weights() -> None:
    made: list[int] = []

    def function(weight: Tensor, factor: int) -> Tensor:
        made.append(factor)
        return factor * weight

    weight = nn.Parameter(torch.ones(3))
    with constant_weights():
        for factor in (2, 3, 2, 3):
            assert torch.equal(derived(function, weight, factor), factor * weight)
        assert made == [2, 3]
        with torch.enable_grad():
            assert derived(function, weight, 2).requires_grad
        with constant_weights():
            derived(function, weight, 2)
        derived(function, weight, 2)
        assert made == [2, 3, 2, 2]
    derived(function, weight, 2)
    assert made == [2, 3, 2, 2, 2]


def a_step(network: nn.Module, fused: bool) -> None:
    for weight in network.parameters():
        weight.grad = torch.ones_like(weight)
    torch.optim.Adam(network.parameters(), lr=0.1, fused=fused).step()


def other_memory(network: nn.Module) -> None:
    for weight in network.parameters():
        for value in (torch.zeros_like(weight), torch.ones_like(weight)):
            weight.data = value


def other_parameters(network: nn.Module) -> None:
    for module in network.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(weight + 1))


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "a step of Adam": lambda network: a_step(network, fused=False),
    "a step of fused Adam": lambda network: a_step(network, fused=True),
    "other weights loaded": lambda network: network.load_state_dict(patch_transformer().state_dict()),
    "other weights assigned": lambda network: network.load_state_dict(patch_transformer().state_dict(), assign=True),
    "copied in place": lambda network: [weight.copy_(weight + 1) for weight in network.parameters()],
    "other memory": other_memory,
    "other parameters": other_parameters,
    "other precision": lambda network: network.bfloat16().float(),
    "a mean of weights": lambda network: torch._foreach_lerp_(
        list(network.parameters()), list(patch_transformer().parameters()), 0.5
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_changed_weights_are_seen_within_constant_weights(change: str) -> None:
    torch.manual_seed(0)
    network, u = patch_transformer(), torch.randn(1, 2, 1, 4, 4)
    with constant_weights():
        before = network(u).field
        CHANGES[change](network)
        with torch.enable_grad():  # nothing is remembered with gradients
            expected = network(u).field
        assert not torch.equal(expected, before)
        assert torch.equal(network(u).field, expected)


@torch.no_grad()
def test_constant_weights_change_no_prediction() -> None:
    torch.manual_seed(0)
    network, other, u = patch_transformer(), patch_transformer(), torch.randn(1, 2, 1, 4, 4)
    copies = [copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
    expected, of_other, large = network(u).field, other(u).field, network(u.repeat(1, 1, 1, 2, 3)).field
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(u).field
    with constant_weights(), torch.inference_mode():
        network(u)
        assert torch.equal(other(u).field, of_other)
        assert torch.equal(network(u.repeat(1, 1, 1, 2, 3)).field, large)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(network(u).field, rounded)
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        for same in (network, *copies, compiled):
            assert torch.equal(same(u).field, expected)
        assert torch.equal(network.double()(u.double()).field, copies[0].double()(u.double()).field)


def test_weights_made_in_inference_mode_work_within_constant_weights() -> None:
    with torch.inference_mode(), constant_weights():
        network, u = patch_transformer(), torch.randn(1, 2, 1, 4, 4)
        before = network(u).field
        for weight in network.parameters():
            weight.add_(1)
        assert not torch.equal(network(u).field, before)


def exact(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def test_the_gradient_of_the_aggregation_is_that_of_the_function() -> None:
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(aggregated, (exact(3, 4), exact(2, 4), exact(2, 4, 5)))


def test_frames_are_aggregated_by_matrices_that_are_not_made() -> None:
    rows, cosines, matrices = exact(3, 4), exact(2, 4), exact(2, 4, 5)
    products, total = aggregated(rows, cosines, matrices)
    scaled = cosines[..., None] * matrices
    assert torch.allclose(products, rows @ scaled)
    assert torch.allclose(total, scaled.sum(0))


def test_samples_are_standardized_as_exactly_as_by_torch() -> None:
    u = torch.randn(3, 5, 2, 32, 24) * torch.tensor([1e-3, 1e3]).view(1, 1, 2, 1, 1) + 100.0
    z, μ, σ = standardized(u)
    exact_σ, exact_μ = torch.std_mean(u.double(), dim=(1, 3, 4), keepdim=True)
    assert torch.allclose(μ.double(), exact_μ, rtol=1e-6)
    assert torch.allclose(σ[:, :, 1].double(), exact_σ[:, :, 1] + 1e-6, rtol=1e-6)
    assert torch.allclose(z, (u - μ) / σ)
    still, _, smallest = standardized(torch.full((1, 4, 1, 8, 8), 0.5))
    assert not still.any()
    assert smallest.item() == pytest.approx(1e-6, rel=1e-3)
