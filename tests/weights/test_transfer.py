"""Trained weights go into another network as far as they fit, and every tensor is accounted for."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, ClassVar, final

import pytest
import torch
from attrs import evolve, frozen
from torch import nn

from opframe.weights.location import WeightsError
from opframe.weights.pretrained import Header, Origin, Weights
from opframe.weights.transfer import Transfer, transfer
from opframe_pot import DPOT, MoEPOT
from opframe_registry import Adapted, Backbone, Change, ConfigError, Fields, PluginError

SMALL = DPOT(width=16, depth=2, heads=2, patch=4)
MIXTURE = MoEPOT(width=16, depth=2, heads=2, patch=4)
FIELDS = Fields(channels=("u", "v"), grid=(16, 16), history=4, horizon=1)


def trained(backbone: Backbone = SMALL, fields: Fields = FIELDS) -> Weights:
    """Weights as if they had been trained: every number differs from a fresh one."""
    torch.manual_seed(1)
    weights = backbone.build(fields).state_dict()
    for weight in weights.values():
        if weight.is_floating_point():
            weight += torch.randn(weight.shape)
    header = Header(backbone=backbone, fields=fields, origin=Origin(source="a test"))
    return Weights(location="source", header=header, weights=weights)


def fresh_network(backbone: Backbone, fields: Fields) -> nn.Module:
    torch.manual_seed(2)
    return backbone.build(fields)


def carried_over(
    source: Weights, backbone: Backbone, fields: Fields, components: Any = "all"
) -> tuple[Transfer, nn.Module]:
    """The transfer into a fresh network, after checks that hold for every one."""
    network = fresh_network(backbone, fields)
    result = transfer(backbone, network, fields, source, components)
    names = [entry.name for entry in result.entries]
    assert Counter(names) == Counter({*network.state_dict(), *source.weights})
    before = fresh_network(backbone, fields).state_dict()
    after = network.state_dict()
    for entry in result.entries:
        if entry.status == "copied":
            assert torch.equal(after[entry.name], source.weights[entry.name]), entry
        if entry.status == "fresh":
            assert torch.equal(after[entry.name], before[entry.name]), entry
        assert (entry.name in after) == (entry.status != "unused"), entry
        assert (entry.how == "") == (entry.status == "copied"), entry
    return result, network


def of_status(result: Transfer, status: str) -> set[str]:
    return {entry.name for entry in result.entries if entry.status == status}


def part_statuses(result: Transfer, part: str) -> set[str]:
    return {entry.status for entry in result.entries if entry.part == part}


def test_into_the_same_network_everything_is_copied() -> None:
    source = trained()
    result, network = carried_over(source, SMALL, FIELDS)
    assert of_status(result, "copied") == source.weights.keys()
    assert {name: weight.dtype for name, weight in network.state_dict().items()} == {
        name: weight.dtype for name, weight in source.weights.items()
    }


def test_on_another_grid_only_positions_are_adapted() -> None:
    result, network = carried_over(trained(), SMALL, evolve(FIELDS, grid=(32, 24)))
    assert of_status(result, "adapted") == {"pos_embed"}
    assert not of_status(result, "fresh")
    assert network.state_dict()["pos_embed"].shape == (1, 16, 8, 6)


@pytest.mark.parametrize("channels", [("u",), ("u", "v", "w"), ("a", "b", "c", "d")])
def test_with_other_channels_only_embedding_and_head_are_adapted(channels: tuple[str, ...]) -> None:
    result, _ = carried_over(trained(), SMALL, evolve(FIELDS, channels=channels))
    assert part_statuses(result, "blocks") == {"copied"}
    assert part_statuses(result, "time_aggregation") == {"copied"}
    assert {entry.part for entry in result.entries if entry.status == "adapted"} == {"embedding", "head"}
    assert not of_status(result, "fresh")


@pytest.mark.parametrize("history", [2, 10])
def test_with_another_history_the_aggregation_of_frames_is_adapted(history: int) -> None:
    result, _ = carried_over(trained(), SMALL, evolve(FIELDS, history=history))
    assert "time_agg_layer.w" in of_status(result, "adapted")
    assert not of_status(result, "fresh")
    for part in ("blocks", "head"):
        assert part_statuses(result, part) == {"copied"}


def test_only_the_components_that_are_asked_for_are_taken() -> None:
    result, _ = carried_over(trained(), SMALL, FIELDS, ("blocks", "time_aggregation"))
    taken = of_status(result, "copied")
    assert taken == {name for name in SMALL.build(FIELDS).state_dict() if name.startswith(("blocks.", "time_agg"))}
    left = [entry for entry in result.entries if entry.name not in taken]
    assert left
    assert all(entry.how == "not among the components" for entry in left)


def test_blocks_of_two_dimensions_go_into_three() -> None:
    solid = evolve(FIELDS, grid=(16, 16, 8))
    result, network = carried_over(trained(), SMALL, solid)
    assert part_statuses(result, "time_aggregation") == {"copied"}
    assert part_statuses(result, "blocks") == {"copied", "adapted"}
    weight, flat = network.state_dict()["blocks.0.mlp.0.weight"], trained().weights["blocks.0.mlp.0.weight"]
    assert torch.equal(weight, flat[..., None])
    inputs = torch.randn(1, 4, 2, 16, 16, 8)
    assert torch.isfinite(network(inputs).field).all()


def test_weights_go_into_a_network_of_another_kind_where_names_are_shared() -> None:
    result, _ = carried_over(trained(), MIXTURE, FIELDS)
    copied = of_status(result, "copied")
    assert {f"blocks.{index}.filter.w1" for index in (0, 1)} <= copied
    assert {"pos_embed", "time_agg_layer.w", "blocks.1.norm2.weight", "out_layer.0.weight"} <= copied
    assert {name for name in SMALL.build(FIELDS).state_dict() if ".mlp." in name} == of_status(result, "unused")
    assert of_status(result, "fresh") == {name for name in MIXTURE.build(FIELDS).state_dict() if ".MoE." in name}


def test_buffers_are_taken_too() -> None:
    source = trained(MIXTURE)
    source.weights["blocks.0.MoE.gating.temperature"].fill_(0.75)
    result, network = carried_over(source, MIXTURE, FIELDS)
    assert float(network.state_dict()["blocks.0.MoE.gating.temperature"]) == 0.75
    assert "blocks.0.MoE.gating.temperature" in of_status(result, "copied")


def test_the_network_keeps_its_precision() -> None:
    source = trained()
    half = evolve(source, weights={name: weight.half() for name, weight in source.weights.items()})
    network = fresh_network(SMALL, FIELDS)
    transfer(SMALL, network, FIELDS, half)
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    assert torch.equal(network.state_dict()["pos_embed"], source.weights["pos_embed"].half().float())


def test_a_backbone_adapts_in_the_precision_of_its_network() -> None:
    seen = []

    def watch(change: Change) -> Adapted:
        seen.append((change.weight.dtype, change.fresh.dtype))
        return Adapted(weight=change.weight)

    source = trained(adapting(watch))
    half = evolve(source, weights={name: weight.half() for name, weight in source.weights.items()})
    transfer(adapting(watch), fresh_network(adapting(watch), FIELDS), FIELDS, half)
    assert seen == [(torch.float32, torch.float32)] * 2


def test_a_weight_that_does_not_fit_is_left_fresh_with_both_shapes() -> None:
    wider = evolve(SMALL, mlp_ratio=2.0)
    result, _ = carried_over(trained(), wider, FIELDS)
    reasons = {entry.name: entry.how for entry in result.entries if entry.status == "fresh"}
    assert reasons["blocks.0.mlp.0.weight"] == "16x16x1x1 does not fit 32x16x1x1"
    assert set(reasons) == {
        f"blocks.{index}.mlp.{name}" for index in (0, 1) for name in ("0.weight", "0.bias", "2.weight")
    }


def test_an_unknown_component_is_named_with_those_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"init.components: dpot has no part 'block'; did you mean 'blocks'\?; .*head"
    ):
        transfer(SMALL, fresh_network(SMALL, FIELDS), FIELDS, trained(), ("block",))


def test_a_transfer_of_nothing_is_an_error_that_says_why() -> None:
    classifying = evolve(SMALL, classes=2)
    network = fresh_network(classifying, FIELDS)
    with pytest.raises(WeightsError, match=r"(?s)source: nothing in it fits the network.*classification .*not in the"):
        transfer(classifying, network, FIELDS, trained(), ("classification",))


def test_the_report_has_every_tensor_and_every_part() -> None:
    result, _ = carried_over(trained(), MIXTURE, evolve(FIELDS, grid=(32, 32)), ("blocks", "embedding"))
    lines = result.summary()
    assert lines[0] == "weights from source (dpot)"
    for part in {entry.part for entry in result.entries}:
        assert any(line.split()[0] == part for line in lines[1:])
    assert all(f" {entry.name} " in f"{result.table()} ".replace("\n", " \n") for entry in result.entries)
    stored = json.loads(result.to_json())
    assert {item["name"] for item in stored["tensors"]} == {entry.name for entry in result.entries}
    assert Counter(stored["counts"]) == Counter(entry.status for entry in result.entries)


def adapting(how: Any) -> Backbone:
    """A backbone of one layer with its own way to adapt weights."""

    @final
    @frozen(kw_only=True)
    class Layer(Backbone):
        """One layer."""

        name: ClassVar[str] = "layer"

        def build(self, fields: Fields) -> nn.Module:
            return nn.Linear(2, len(fields.channels))

        def adapt(self, change: Change) -> Adapted | None:
            answer: Adapted | None = how(change)
            return answer

    return Layer()


def test_a_backbone_that_adapts_to_a_wrong_shape_is_named() -> None:
    wrong = adapting(lambda change: Adapted(weight=change.weight.flatten()))
    with pytest.raises(PluginError, match="backbone layer adapts weight to the shape 4, not 2x2"):
        transfer(wrong, fresh_network(wrong, FIELDS), FIELDS, trained(wrong))


def test_what_a_backbone_does_to_a_fresh_tensor_it_does_not_return_is_lost() -> None:
    def spoil(change: Change) -> Adapted | None:
        change.fresh.zero_()
        return None if change.name == "weight" else Adapted(weight=change.weight)

    result, network = carried_over(trained(adapting(spoil)), adapting(spoil), FIELDS)
    assert of_status(result, "fresh") == {"weight"}
    assert network.state_dict()["weight"].abs().min() > 0
