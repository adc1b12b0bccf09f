"""Products by oneDNN are those of torch, forward and backward, and whatever goes around those knows of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from opframe.layers import products
from opframe.layers.products import dense, grouped_dense, outer_product, product

SHAPES = [(7, 3, 5), (64, 9, 3), (1, 4, 5), (48, 1, 1), (640, 3, 5), (645, 5, 3)]
"""Rows, inputs and outputs; the last two are tall, with and without rows to be shared equally."""


def difference(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).detach().norm() / expected.detach().norm())


def leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def alike(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], inputs: list[Tensor], tolerance: float) -> bool:
    """Whether outputs and gradients of all inputs are close to those in float64."""
    exact = [each.detach().double().requires_grad_() for each in inputs]
    output, expected = ours(*inputs), theirs(*exact)
    probe = torch.randn_like(expected)
    found = [output, *torch.autograd.grad(output, inputs, probe.to(output.dtype))]
    sought = [expected, *torch.autograd.grad(expected, exact, probe)]
    return all(difference(one.double(), other) <= tolerance for one, other in zip(found, sought, strict=True))


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_dense_layers_are_those_of_torch(rows: int, inputs: int, outputs: int, bfloat16: bool) -> None:
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        tensors = leaves((rows, inputs), (outputs, inputs), (outputs,))
        assert alike(dense, functional.linear, tensors, 3e-2 if bfloat16 else 1e-6)
        assert dense(*tensors).dtype is (torch.bfloat16 if bfloat16 else torch.float32)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("rows", [5, 160])
def test_groups_have_dense_layers_of_their_own(rows: int, bfloat16: bool) -> None:
    torch.manual_seed(0)
    tensors = leaves((2, rows, 3), (2, 3, 4), (2, 1, 4))
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        assert alike(grouped_dense, lambda x, weight, bias: x @ weight + bias, tensors, 3e-2 if bfloat16 else 1e-6)


def test_a_dense_layer_takes_any_axes_and_strides_and_transposed_weights() -> None:
    torch.manual_seed(0)
    x, weight = leaves((3, 6, 4, 10), (5, 3))
    expected = functional.linear(x[..., ::2].transpose(1, 2), weight.T)
    found = dense(x[..., ::2].transpose(1, 2), weight.T)
    assert found.shape == (3, 4, 6, 3)
    assert difference(found, expected) <= 1e-6
    probe = torch.randn_like(found)
    gradients = [torch.autograd.grad(output, (x, weight), probe) for output in (found, expected)]
    assert all(difference(one, other) <= 1e-6 for one, other in zip(*gradients, strict=True))


def test_only_the_gradients_that_are_wanted_are_computed() -> None:
    x, (weight,) = torch.randn(8, 3), leaves((4, 3))
    with FlopCounterMode(display=False) as flops:
        dense(x, weight).sum().backward()
    assert flops.get_total_flops() == 2 * (2 * 8 * 3 * 4)
    assert weight.grad is not None
    assert difference(weight.grad, x.sum(0).expand(4, 3)) <= 1e-6


@pytest.mark.parametrize("rows", [8, 320])
def test_the_work_of_products_is_counted(rows: int) -> None:
    x, weight = leaves((rows, 3), (4, 3))
    with FlopCounterMode(display=False) as flops:
        dense(x, weight).sum().backward()
    assert flops.get_total_flops() == 3 * (2 * rows * 3 * 4)


def test_the_operation_is_known_to_the_compiler() -> None:
    torch.library.opcheck(torch.ops.opframe.product, (torch.randn(6, 3), torch.randn(4, 3), torch.randn(4)))
    torch.library.opcheck(torch.ops.opframe.product, (torch.randn(3, 6).T, torch.randn(3, 4).T, None))
    x, weight = leaves((32, 3), (4, 3))
    graphs = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(dense, backend=count, fullgraph=True)(x, weight)
    assert len(graphs) == 1
    assert torch.equal(compiled, dense(x, weight))


def test_where_there_is_no_onednn_torch_computes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_ONEDNN", False)
    x, weight, bias = torch.randn(5, 3), torch.randn(4, 3), torch.randn(4)
    assert torch.equal(dense(x, weight, bias), functional.linear(x, weight, bias))
    assert torch.equal(product(x, weight, bias), functional.linear(x, weight, bias))
    assert torch.equal(outer_product(x, x), x.T @ x)
    grouped = grouped_dense(x[None], weight.T[None], bias[None, None])[0]
    torch.testing.assert_close(grouped, torch.addmm(bias, x, weight.T))  # on some processors they add in another order
