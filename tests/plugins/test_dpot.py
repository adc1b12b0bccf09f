"""The DPOT network computes what the published ones do, in two and three dimensions, on any grid of whole patches."""

from __future__ import annotations

import json
import math
from fnmatch import fnmatchcase
from typing import Any

import pytest
import torch
from attrs import evolve
from safetensors.torch import load_file
from torch import Tensor, nn

from opframe_pot import DPOT
from opframe_registry import ConfigError, Fields
from support import GOLDEN, PUBLISHED_KEYS, adapted_weight

CASES = ("dpot_all_modes", "dpot_truncated_modes_normalized_bundle2", "dpot3d")


def grid_of(channels: int, *grid: int, history: int = 4, horizon: int = 1) -> Fields:
    return Fields(channels=tuple("abcdefgh"[:channels]), grid=grid, history=history, horizon=horizon)


def published(case: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network with the weights of a golden file, and the file."""
    golden = load_file(GOLDEN / f"{case}.safetensors")
    settings: dict[str, Any] = json.loads((GOLDEN / f"{case}.json").read_text())["config"]
    grid = [settings["img_size"]] * (golden["input"].ndim - 3)
    frames = {"history": settings["in_timesteps"], "horizon": settings["out_timesteps"]}
    network = DPOT(**{ours: settings[theirs] for theirs, ours in PUBLISHED_KEYS.items()}).build(
        grid_of(settings["in_channels"], *grid, **frames)
    )
    network.load_state_dict(
        {name.removeprefix("weights/"): value for name, value in golden.items() if name.startswith("weights/")}
    )
    return network, golden


def ours(tensor: Tensor) -> Tensor:
    """(B, *grid, T, C) -> (B, T, C, *grid)."""
    return tensor.movedim((-2, -1), (1, 2)).contiguous()


def difference(value: Tensor, expected: Tensor) -> float:
    """Relative, or absolute where there is next to nothing to compare with."""
    size = float(expected.norm())
    return float((value - expected).norm()) / (size if size >= 1e-6 else 1.0)


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_those_of_the_published_network(case: str) -> None:
    network, golden = published(case)
    inputs = ours(golden["input"]).requires_grad_()
    prediction = network(inputs)
    assert difference(prediction.field.detach(), ours(golden["output"])) <= 1e-5
    (prediction.field * ours(golden["probe"])).sum().backward()
    assert inputs.grad is not None
    assert difference(inputs.grad, ours(golden["grad/input"])) <= 1e-4
    trained = {name: weight for name, weight in network.named_parameters() if not name.startswith("cls_head.")}
    for name, weight in trained.items():
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


@pytest.mark.parametrize("case", CASES)
def test_the_parameters_have_the_published_names_and_shapes(case: str) -> None:
    network, golden = published(case)
    shapes = {name.removeprefix("weights/"): value.shape for name, value in golden.items() if "weights/" in name}
    assert {name: value.shape for name, value in network.state_dict().items()} == shapes


@pytest.mark.parametrize("case", CASES[:2])
def test_class_logits_are_those_of_the_published_network(case: str) -> None:
    network, golden = published(case)
    logits = network(ours(golden["input"])).class_logits
    assert difference(logits.detach(), golden["class_logits"]) <= 1e-5


def test_a_network_classifies_only_where_it_is_asked_to() -> None:
    fields = evolve(grid_of(1, 8, 8), datasets=("one", "two"))
    network = DPOT(width=16, depth=1, heads=2, patch=4).build(fields)
    assert not any(name.startswith("cls_head.") for name in network.state_dict())
    assert network(torch.randn(1, 4, 1, 8, 8)).class_logits is None
    network = DPOT(width=16, depth=1, heads=2, patch=4, classes=3).build(fields)
    logits = network(torch.randn(2, 4, 1, 8, 8)).class_logits
    assert logits.shape == (2, 3)
    logits.sum().backward()
    assert all(weight.grad is not None for weight in network.cls_head.parameters())


def test_fewer_classes_than_datasets_are_refused() -> None:
    fields = evolve(grid_of(1, 8, 8), datasets=("one", "two", "three"))
    with pytest.raises(ConfigError, match=r"classes = 2, .* 3 datasets; set classes to 3 or more"):
        DPOT(width=16, heads=2, patch=4, classes=2).build(fields)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("fields", [grid_of(2, 24, 8), grid_of(1, 4, 20, history=1, horizon=3), grid_of(2, 4, 12, 8)])
def test_any_grid_of_whole_patches_works_and_samples_do_not_mix(fields: Fields, normalize: bool) -> None:
    torch.manual_seed(0)
    network = DPOT(width=16, depth=2, heads=2, patch=4, normalize=normalize).build(fields)
    inputs = torch.randn(3, fields.history, len(fields.channels), *fields.grid)
    together = network(inputs).field
    assert together.shape == (3, fields.horizon, len(fields.channels), *fields.grid)
    alone = torch.cat([network(sample[None]).field for sample in inputs])
    assert difference(together.detach(), alone.detach()) <= 1e-5


def adapted_to(settings: DPOT, network: nn.Module, old: Fields, new: Fields) -> nn.Module:
    """The network for other fields, with the same weights as far as they fit."""
    weights, result = network.state_dict(), settings.build(new)
    fresh = result.state_dict()
    adapted = {name: adapted_weight(settings, name, fresh[name], old, new, weights) for name in weights}
    result.load_state_dict({name: change.weight for name, change in adapted.items() if change is not None})
    return result


@pytest.mark.parametrize("modes", [32, 2])
@pytest.mark.parametrize(("own", "other"), [((16, 16), (8, 8)), ((8, 16), (24, 12)), ((4, 8, 16), (8, 8, 4))])
def test_another_grid_is_predicted_as_by_the_network_adapted_to_it(
    own: tuple[int, ...], other: tuple[int, ...], modes: int
) -> None:
    torch.manual_seed(0)
    settings = DPOT(width=16, depth=2, heads=2, patch=4, modes=modes, normalize=True, classes=2)
    network = settings.build(grid_of(2, *own))
    inputs = torch.randn(2, 4, 2, *other)
    prediction = network(inputs)
    expected = adapted_to(settings, network, grid_of(2, *own), grid_of(2, *other))(inputs)
    assert difference(prediction.field.detach(), expected.field.detach()) <= 1e-6
    assert difference(prediction.class_logits.detach(), expected.class_logits.detach()) <= 1e-6
    (prediction.field.sum() + prediction.class_logits.sum()).backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_a_batch_on_a_grid_that_patches_do_not_divide_is_refused() -> None:
    network = DPOT(width=16, heads=2, patch=4).build(grid_of(1, 8, 8))
    with pytest.raises(ConfigError, match=r"patch = 4 does not divide the grid 12×10; set patch to one of 1, 2,"):
        network(torch.randn(1, 4, 1, 12, 10))


def test_normalisation_makes_predictions_follow_a_change_of_units() -> None:
    torch.manual_seed(0)
    network = DPOT(width=16, depth=1, heads=2, patch=4, normalize=True).build(grid_of(2, 8, 8))
    nn.init.zeros_(network.scale_feats_mu.weight)
    nn.init.zeros_(network.scale_feats_sigma.weight)
    inputs = torch.randn(2, 4, 2, 8, 8)
    scaled = network(100 * inputs + 7).field
    assert difference(scaled.detach(), (100 * network(inputs).field + 7).detach()) <= 1e-4


@pytest.mark.parametrize(("own", "other"), [((8, 8), (8, 8)), ((8, 4, 4), (8, 4, 4)), ((8, 8), (16, 12))])
def test_the_computation_compiles_to_one_graph_on_any_grid(own: tuple[int, ...], other: tuple[int, ...]) -> None:
    graphs = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    network = DPOT(width=16, depth=1, heads=2, patch=4, normalize=True, classes=2).build(grid_of(2, *own))
    inputs = torch.randn(2, 4, 2, *other)
    compiled = torch.compile(network, backend=count, fullgraph=True)(inputs)
    assert len(graphs) == 1
    assert torch.equal(compiled.field, network(inputs).field)
    assert torch.equal(compiled.class_logits, network(inputs).class_logits)


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
    with torch.device("meta"):
        network = DPOT(**{"size": size, "classes": 12, **DPOT.presets[size]}).build(grid_of(4, 128, 128, history=10))
    count = sum(weight.numel() for weight in network.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.006)


def test_every_tensor_belongs_to_one_part() -> None:
    network = DPOT(width=16, depth=2, heads=2, patch=4, normalize=True, classes=3).build(grid_of(2, 8, 8))
    parts = [
        [part for part, patterns in DPOT.parts.items() if any(fnmatchcase(name, pattern) for pattern in patterns)]
        for name in network.state_dict()
    ]
    assert all(len(names) == 1 for names in parts)
    assert {names[0] for names in parts} == DPOT.parts.keys()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 20, "heads": 2}, ("width = 20", "multiple of 8", "such as 16")),
        ({"width": 32, "heads": 3}, ("heads = 3", "width = 32", "1, 2, 4, 8, 16, 32")),
        ({"width": 8, "mlp_ratio": 0.1}, ("mlp_ratio = 0.1", "width = 8")),
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


@pytest.mark.parametrize("grid", [(64,), (8, 8, 8, 8)])
def test_a_grid_of_neither_two_nor_three_axes_is_refused(grid: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="2-D and 3-D"):
        DPOT().build(grid_of(1, *grid))
