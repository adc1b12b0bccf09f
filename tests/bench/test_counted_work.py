"""The work of a training step, counted: a slow path cannot come back unnoticed, and costs grow as they should.

Counted are matrix products and convolutions, two for a multiplication with its addition. Behind each product, backward
has one for the gradient of either factor, unless that is an input or a constant.

Legend: B batch, T frames, C channels, N points or patches of X Y, P side of a patch, D width, K L kept modes, h heads.
"""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch
from attrs import evolve
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.sides import random_batch, trainer_of
from opframe.bench.work import Work, count_work
from opframe_fno import FNO
from opframe_pot import DPOT, MoEPOT
from opframe_registry import Backbone, Fields
from opframe_unet import UNet
from tests.reference import straightforward

B, T, C = 3, 4, 2
X, Y = 16, 24
FIELDS = Fields(channels=("u", "v"), grid=(X, Y), history=T)
SIZES: dict[str, Any] = {"width": 32, "depth": 2, "heads": 4, "patch": 4, "modes": 3, "output_width": 8}
SMALL = DPOT(**SIZES, mlp_ratio=2.0)
MIXTURE = MoEPOT(**SIZES, mlp_ratio=2.0, routed_experts=8, chosen_experts=3, shared_experts=2)
TINY = DPOT(**DPOT.presets["tiny"])
PUBLISHED = Fields(channels=tuple("abcd"), grid=(128, 128), history=10)
BACKBONES: dict[str, Backbone] = {
    "dpot": SMALL,
    "moepot": MIXTURE,
    "fno": FNO(width=8, depth=2, modes=(4, 4)),
    "unet": UNet(width=8, levels=2),
}


def counted(network: nn.Module, batch: int, fields: Fields) -> int:
    """Of one pass forward and backward."""
    u = torch.randn(batch, fields.history, len(fields.channels), *fields.grid)
    with FlopCounterMode(display=False) as flops:
        network(u).field.sum().backward()
    return flops.get_total_flops()


def embedding_and_head(settings: DPOT | MoEPOT) -> int:
    """What patch transformers share, forward and backward."""
    D, P, O = settings.width, settings.patch, settings.output_width  # noqa: N806, E741
    N, M = X * Y // P**2, C * P + 3  # noqa: N806
    patches = B * N * T * C * P**2 * M + (X + Y) * M  # no gradient of inputs and coordinates
    folding = T * M * D**2 + N * D**2
    embedding = B * N * T * M * D
    head = B * N * P**2 * (D * O + O**2 + O * C)
    return 4 * patches + 6 * (folding + embedding + head)


def attention(settings: DPOT | MoEPOT) -> int:
    """Of one block, forward and backward. The transforms are constants."""
    D, x, y = settings.width, X // settings.patch, Y // settings.patch  # noqa: N806
    K, L = min(settings.modes, x), min(settings.modes, y // 2 + 1)  # noqa: N806
    transform = x * 2 * L * y * D + 2 * K * 2 * x * L * D
    perceptron = 2 * K * L * settings.heads * (2 * D // settings.heads) ** 2
    return B * (2 * 4 * transform + 6 * perceptron)


def test_a_step_of_dpot_is_its_products_with_folded_weights() -> None:
    perceptron = 6 * B * X * Y // SMALL.patch**2 * 2 * SMALL.width * SMALL.hidden
    expected = embedding_and_head(SMALL) + SMALL.depth * (attention(SMALL) + perceptron)
    assert counted(SMALL.build(FIELDS), B, FIELDS) == expected


def test_a_step_of_moepot_computes_the_shared_and_the_chosen_experts_only() -> None:
    H, N = MIXTURE.hidden, X * Y // MIXTURE.patch**2  # noqa: N806
    layers = 1 + MIXTURE.shared_experts + MIXTURE.chosen_experts  # 1: the features
    experts = 6 * B * N * MIXTURE.width * layers * H
    gate = 6 * B * H * (2 * H + 2 * 2 * H // 8 + 2 * H + MIXTURE.routed_experts)
    expected = embedding_and_head(MIXTURE) + MIXTURE.depth * (attention(MIXTURE) + experts + gate)
    assert counted(MIXTURE.build(FIELDS), B, FIELDS) == expected


def test_a_step_of_fno_transforms_the_kept_modes_only() -> None:
    D, K, L, M, depth = 8, 4, 4, T * C + 2, 2  # noqa: N806 - M inner channels of the embedding
    transform = X * 2 * L * Y * D + 2 * 2 * K * 2 * X * L * D
    spectral = 8 * B * transform + 6 * 2 * K * L * 2 * B * 2 * D**2
    points = 4 * T * C * M + 6 * (M * D + depth * D**2 + D**2 + D * C)
    expected = depth * spectral + B * X * Y * points
    assert counted(BACKBONES["fno"].build(FIELDS), B, FIELDS) == expected


def test_a_step_of_unet_is_its_convolutions() -> None:
    network = BACKBONES["unet"].build(FIELDS)
    products: list[int] = []

    def count(layer: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        transposed = isinstance(layer, nn.ConvTranspose2d)
        points = prod((inputs[0] if transposed else output).shape[2:])
        products.append(2 * B * points * layer.weight.numel())

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(count)
    flops = counted(network, B, FIELDS)
    assert flops == 3 * sum(products) - products[0]


def training_step(network: nn.Module, batch: int) -> Work:
    """The work of the trainer's step."""
    trainer, windows = trainer_of(network, PUBLISHED), random_batch(PUBLISHED, batch)
    return count_work(lambda: trainer.train_step(windows), torch.device("cpu"))


def test_a_step_of_dpot_tiny_needs_two_thirds_of_the_straightforward_work_and_fewer_kernels_and_memory() -> None:
    ours = training_step(TINY.build(PUBLISHED), 4)
    theirs = training_step(straightforward(TINY, PUBLISHED), 4)
    assert round(theirs.flops / 1e9, 2) == 44.88
    assert ours.flops <= 0.68 * theirs.flops
    assert ours.memory <= 0.78 * theirs.memory
    assert ours.kernels <= 500


@pytest.mark.parametrize("name", BACKBONES)
def test_work_grows_linearly_with_the_batch(name: str) -> None:
    network = BACKBONES[name].build(FIELDS)
    two, three, six = (counted(network, batch, FIELDS) for batch in (2, 3, 6))
    sample = three - two
    assert six - three == 3 * sample
    assert 0 <= two - 2 * sample <= 0.1 * two  # once a step: the weights are folded


@pytest.mark.parametrize("name", ["dpot", "moepot"])
@pytest.mark.parametrize("axis", ["frames", "channels"])
def test_work_of_a_patch_transformer_grows_linearly_with(name: str, axis: str) -> None:
    """Of channels, the first layer's work is proportional to the square: C·P inputs for every of C·P + 3 outputs."""

    def fields(size: int) -> Fields:
        return evolve(FIELDS, history=size) if axis == "frames" else evolve(FIELDS, channels=tuple("abcdef"[:size]))

    few, some, many = (counted(BACKBONES[name].build(fields(size)), B, fields(size)) for size in (2, 4, 6))
    assert abs(many - 2 * some + few) <= (0 if axis == "frames" else 0.05 * many)


@pytest.mark.parametrize("name", BACKBONES)
def test_work_grows_about_in_proportion_to_the_grid(name: str) -> None:
    """Four times the points: the transforms of kept modes grow as their products, of points and of few modes."""
    finer = evolve(FIELDS, grid=(2 * X, 2 * Y))
    ratio = counted(BACKBONES[name].build(finer), B, finer) / counted(BACKBONES[name].build(FIELDS), B, FIELDS)
    assert 3 <= ratio <= 4
