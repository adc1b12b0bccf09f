"""The layers that backbones share are the convolutions and transforms they stand for, in any number of axes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from opframe.layers.attention import FourierAttention
from opframe.layers.dense import Pointwise, TokenNorm
from opframe.layers.patch_transformer import Mixed, PatchTransformer
from opframe.layers.patches import PatchConvolution, PatchExpansion, gather_patches, scatter_patches
from opframe_dpot import DPOT
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
