"""The MoE-POT network computes what the published one does, and of its experts only those that a sample chooses."""

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
from torch.profiler import profile

from opframe_pot import MoEPOT
from opframe_pot.experts import Expert, weighted_experts
from opframe_pot.gate import Gate, Routing
from opframe_pot.moepot import Mixture, router_scores
from opframe_registry import Adapted, ConfigError, Fields, Prediction
from support import GOLDEN, PUBLISHED_KEYS, adapted_weight

SMALL = MoEPOT(width=16, depth=2, heads=2, patch=4, routed_experts=6, chosen_experts=2)


def grid_of(channels: int, *grid: int, history: int = 4, horizon: int = 1) -> Fields:
    return Fields(channels=tuple("abcdefgh"[:channels]), grid=grid, history=history, horizon=horizon)


def published() -> tuple[nn.Module, dict[str, Tensor]]:
    """A network with the weights of the golden file, its routers at the temperature they begin with, and the file."""
    golden = load_file(GOLDEN / "moepot.safetensors")
    settings: dict[str, Any] = json.loads((GOLDEN / "moepot.json").read_text())["config"]
    fields = grid_of(settings["in_channels"], 32, 32, history=settings["in_timesteps"])
    network = MoEPOT(**{ours: settings[theirs] for theirs, ours in PUBLISHED_KEYS.items()}).build(fields)
    missing = network.load_state_dict(golden_weights(golden), strict=False)
    assert missing.missing_keys == ["blocks.0.MoE.gating.temperature"]
    assert not missing.unexpected_keys
    return network, golden


def golden_weights(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("weights/"): value for name, value in golden.items() if name.startswith("weights/")}


def ours(tensor: Tensor) -> Tensor:
    """(B, X, Y, T, C) -> (B, T, C, X, Y)."""
    return tensor.permute(0, 3, 4, 1, 2).contiguous()


def difference(value: Tensor, expected: Tensor) -> float:
    """Relative, or absolute where there is next to nothing to compare with."""
    size = float(expected.norm())
    return float((value - expected).norm()) / (size if size >= 1e-6 else 1.0)


def experts_of(count: int, inputs: int, outputs: int) -> nn.ModuleList:
    return nn.ModuleList(Expert(inputs, outputs, 2) for _ in range(count)).double()


def every_expert(experts: nn.ModuleList, f: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
    """All experts on all samples, times shares that are mostly zeros."""
    every = torch.zeros(len(f), len(experts), dtype=shares.dtype).scatter(1, chosen, shares)
    return torch.stack([expert(f) * every[:, i, None, None, None] for i, expert in enumerate(experts)]).sum(0)


def test_outputs_and_gradients_are_those_of_the_published_network() -> None:
    network, golden = published()
    inputs = ours(golden["input"]).requires_grad_()
    prediction = network.eval()(inputs)
    assert difference(prediction.field.detach(), ours(golden["output"])) <= 1e-5
    assert difference(prediction.class_logits.detach(), golden["class_logits"]) <= 1e-5
    (prediction.field * ours(golden["probe"])).sum().backward()
    assert inputs.grad is not None
    assert difference(inputs.grad, ours(golden["grad/input"])) <= 1e-4
    for name, weight in network.named_parameters():
        if not name.startswith("cls_head."):
            assert weight.grad is not None, name
            assert difference(weight.grad, golden[f"grad/{name}"]) <= 1e-4, name


def test_a_training_pass_is_that_of_the_published_network() -> None:
    network, golden = published()
    prediction = network.train()(ours(golden["input"]))
    assert difference(prediction.field.detach(), ours(golden["train_output"])) <= 1e-5
    assert set(prediction.penalties) == {"balance"}
    assert difference(prediction.penalties["balance"].detach(), golden["train_balance_loss"][0]) <= 1e-5


def test_the_parameters_have_the_published_names_and_shapes() -> None:
    network, golden = published()
    expected = {name: weight.shape for name, weight in golden_weights(golden).items()}
    expected["blocks.0.MoE.gating.temperature"] = torch.Size([])
    assert {name: weight.shape for name, weight in network.state_dict().items()} == expected


def test_bfloat16_autocast_stays_close_to_float32_and_routes_alike() -> None:
    network, golden = published()
    inputs = ours(golden["input"])
    expected = router_scores(network.eval(), inputs)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        prediction, scores = network(inputs), router_scores(network, inputs)
    assert prediction.field.dtype == scores.dtype == torch.float32
    assert difference(prediction.field, ours(golden["output"])) <= 2e-2
    assert torch.equal(scores.topk(4).indices, expected.topk(4).indices)


def test_bfloat16_autocast_gives_gradients_close_to_float32() -> None:
    network, golden = published()
    with torch.autocast("cpu", torch.bfloat16):
        prediction = network.eval()(ours(golden["input"]))
    (prediction.field * ours(golden["probe"])).sum().backward()
    for index in range(16):
        weight = network.get_parameter(f"blocks.0.MoE.experts.{index}.conv.0.weight")
        assert weight.grad is not None
        assert weight.grad.dtype == torch.float32
        assert difference(weight.grad, golden[f"grad/blocks.0.MoE.experts.{index}.conv.0.weight"]) <= 5e-2


@pytest.mark.parametrize("chosen", [[[0, 2], [2, 1], [5, 2]], [[3, 4]], [[1, 0], [1, 0]], [[0, 2], [1, 3], [2, 0]]])
def test_weighted_experts_are_all_experts_times_zero_where_not_chosen(chosen: list[list[int]]) -> None:
    torch.manual_seed(0)
    experts, indices = experts_of(6, 5, 8), torch.tensor(chosen)
    f = torch.randn(len(chosen), 3, 2, 5, dtype=torch.float64, requires_grad=True)
    shares = torch.rand(len(chosen), 2, dtype=torch.float64, requires_grad=True)
    inputs = [f, shares, *experts.parameters()]
    outputs = [way(experts, f, indices, shares) for way in (weighted_experts, every_expert)]
    assert difference(outputs[0].detach(), outputs[1].detach()) <= 1e-12
    probe = torch.randn_like(outputs[0])
    ours, expected = (torch.autograd.grad(output, inputs, probe) for output in outputs)
    assert all(difference(one, other) <= 1e-12 for one, other in zip(ours, expected, strict=True))


def test_the_operations_on_chosen_experts_are_what_a_compiler_takes_them_for() -> None:
    torch.manual_seed(0)
    f, shares, chosen = torch.randn(3, 4, 3), torch.rand(3, 2), torch.tensor([[0, 3], [3, 1], [0, 1]])
    weights, biases = [torch.randn(5, 3, 1, 1) for _ in range(4)], [torch.randn(5) for _ in range(4)]
    operations = torch.ops.opframe
    torch.library.opcheck(operations.chosen_experts, (f, chosen, shares, weights, biases))
    mean, inner = operations.chosen_experts(f, chosen, shares, weights, biases)
    torch.library.opcheck(operations.chosen_experts_backward, (mean, f, inner, chosen, shares, weights))


def test_an_expert_that_no_sample_chose_is_not_computed_and_gets_the_gradient_zero() -> None:
    torch.manual_seed(0)
    experts = experts_of(4, 5, 8)
    for expert in (experts[1], experts[3]):
        nn.init.constant_(expert.get_parameter("conv.0.weight"), math.nan)
    f = torch.randn(3, 2, 2, 5, dtype=torch.float64, requires_grad=True)
    chosen, shares = torch.tensor([[0, 2], [2, 0], [0, 2]]), torch.rand(3, 2, dtype=torch.float64)
    output = weighted_experts(experts, f, chosen, shares)
    output.sum().backward()
    assert output.isfinite().all()
    assert f.grad is not None
    assert f.grad.isfinite().all()
    for index, expert in enumerate(experts):
        for weight in expert.parameters():
            assert weight.grad is not None
            assert bool(weight.grad.any()) == (index in (0, 2))


@pytest.mark.parametrize(("routed", "chosen"), [(4, 2), (16, 2), (16, 4)])
def test_the_work_of_the_experts_grows_with_those_chosen_and_not_with_those_there_are(routed: int, chosen: int) -> None:
    torch.manual_seed(0)
    experts = experts_of(routed, 8, 8)
    choices = torch.stack([torch.randperm(routed)[:chosen] for _ in range(5)])
    with profile(with_flops=True) as seen, torch.no_grad():
        weighted_experts(experts, torch.randn(5, 3, 2, 8, dtype=torch.float64), choices, torch.rand(5, chosen))
    products = sum(event.flops for event in seen.events() if event.name == "aten::addmm")
    assert products == 2 * (5 * chosen) * (3 * 2) * 8 * 8


def test_the_computation_compiles_to_one_graph() -> None:
    graphs = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    network = evolve(SMALL, normalize=True, classes=2).build(grid_of(2, 8, 8)).eval()
    inputs = torch.randn(3, 4, 2, 8, 8)
    compiled = torch.compile(network, backend=count, fullgraph=True)(inputs)
    assert len(graphs) == 1
    assert torch.equal(compiled.field, network(inputs).field)


def test_compiled_training_has_the_gradients_and_temperatures_of_training_that_is_not() -> None:
    torch.manual_seed(0)
    mixture = Mixture(evolve(SMALL, gate_norm="group"), 2).double()
    state = {name: value.clone() for name, value in mixture.state_dict().items()}
    gradients, temperatures = [], []
    for way in (mixture, torch.compile(mixture, backend="aot_eager", fullgraph=True)):
        mixture.load_state_dict(state)
        mixture.zero_grad()
        for seed in range(2):
            mixed = way(torch.randn(3, 2, 2, 16, generator=torch.manual_seed(seed), dtype=torch.float64))
            (mixed.tokens.square().sum() + mixed.penalties["balance"]).backward()
        gradients.append([weight.grad.clone() for weight in mixture.parameters() if weight.grad is not None])
        temperatures.append(float(mixture.gating.temperature))
    assert len(gradients[0]) == len(list(mixture.parameters()))
    assert all(difference(one, other) <= 1e-12 for one, other in zip(*gradients, strict=True))
    assert temperatures == [pytest.approx(2 * 0.99**2)] * 2


def test_the_temperature_falls_after_every_training_pass_and_only_then() -> None:
    settings = evolve(SMALL, temperature=2.0, temperature_decay=0.5, temperature_end=0.6)
    network = settings.build(grid_of(1, 8, 8))
    gates = [module for module in network.modules() if isinstance(module, Gate)]
    inputs, seen = torch.randn(2, 4, 1, 8, 8), []
    for training in (True, False, True, True):
        network.train(training)(inputs)
        seen.append([float(gate.temperature) for gate in gates])
    assert seen == [[1.0, 1.0], [1.0, 1.0], [pytest.approx(0.6)] * 2, [pytest.approx(0.6)] * 2]


def test_the_temperature_is_in_the_state_and_divides_the_scores() -> None:
    torch.manual_seed(0)
    network, other = (SMALL.build(grid_of(1, 8, 8)) for _ in range(2))
    inputs = torch.randn(3, 4, 1, 8, 8)
    network(inputs)
    other.load_state_dict(network.state_dict())
    assert float(other.blocks[0].MoE.gating.temperature) == pytest.approx(2 * 0.99)
    before = router_scores(network.eval(), inputs)
    assert torch.equal(router_scores(other.eval(), inputs), before)
    network.blocks[0].MoE.gating.temperature.fill_(1.0)
    sharper = (before[:, 0].log() * 1.98).softmax(1)
    assert difference(router_scores(network, inputs)[:, 0], sharper) <= 1e-5


def test_a_router_in_evaluation_mode_stays_as_it_is_while_the_rest_trains() -> None:
    network = SMALL.build(grid_of(1, 8, 8)).train()
    routers = [network.blocks[index].MoE.gating.eval() for index in range(2)]
    before = [{name: value.clone() for name, value in router.state_dict().items()} for router in routers]
    prediction = network(torch.randn(1, 4, 1, 8, 8))
    assert not prediction.penalties
    prediction.field.square().sum().backward()
    for router, state in zip(routers, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in router.state_dict().items())


def routed(settings: MoEPOT, scores: Tensor) -> tuple[Routing, Gate]:
    """What a gate that gives these scores (B, N_r) decides in training."""
    gate = Gate(evolve(settings, temperature=1.0))
    gate.gate = nn.Sequential(nn.Flatten())
    return gate(scores[:, None, None].expand(-1, 2, 3, -1)), gate


def test_the_best_experts_are_chosen_and_share_by_the_softmax_of_their_scores() -> None:
    routing, _ = routed(SMALL, torch.tensor([[0.0, 3, 1, -1, 2, 0], [5, 1, 1, 1, 1, 4]]))
    assert routing.chosen.tolist() == [[1, 4], [0, 5]]
    expected = torch.tensor([1.0, math.exp(-1)]) / (1 + math.exp(-1))
    assert difference(routing.shares, expected.expand(2, 2)) <= 1e-6


def test_softmax_before_the_choice_differs_only_in_that_shares_are_not_divided_by_their_sum() -> None:
    scores = torch.randn(5, 6, generator=torch.manual_seed(0))
    before, _ = routed(evolve(SMALL, routing="softmax_then_top"), scores)
    after, _ = routed(SMALL, scores)
    assert torch.equal(before.chosen, after.chosen)
    assert difference(before.shares, scores.softmax(1).gather(1, before.chosen)) <= 1e-6
    assert difference(before.shares / before.shares.sum(1, keepdim=True), after.shares) <= 1e-6


def test_balance_is_the_variance_of_importance_or_that_over_its_squared_mean() -> None:
    scores = torch.randn(5, 6, generator=torch.manual_seed(0))
    variance, _ = routed(SMALL, scores)
    relative, _ = routed(evolve(SMALL, balance="cv_squared"), scores)
    importance = [0.0] * 6
    for chosen, shares in zip(variance.chosen.tolist(), variance.shares.tolist(), strict=True):
        for expert, share in zip(chosen, shares, strict=True):
            importance[expert] += share
    expected = sum((value - 5 / 6) ** 2 for value in importance) / 6
    assert float(variance.imbalance) == pytest.approx(expected, rel=1e-5)
    assert float(relative.imbalance) == pytest.approx(expected / (5 / 6) ** 2, rel=1e-5)


def test_relative_balance_does_not_grow_with_the_batch() -> None:
    scores = torch.randn(4, 6, generator=torch.manual_seed(0))
    settings = evolve(SMALL, balance="cv_squared")
    once, twice = routed(settings, scores)[0], routed(settings, scores.repeat(2, 1))[0]
    assert float(once.imbalance) == pytest.approx(float(twice.imbalance), rel=1e-5)


@pytest.mark.parametrize("balance", ["variance", "cv_squared"])
def test_experts_that_are_used_alike_have_no_penalty(balance: str) -> None:
    pairs = torch.eye(3).repeat_interleave(2, dim=1)  # sample i chooses the experts 2i and 2i + 1
    assert float(routed(evolve(SMALL, balance=balance), pairs)[0].imbalance) == pytest.approx(0, abs=1e-12)


def test_group_norm_in_the_gate_keeps_samples_apart_in_training_and_batch_norm_does_not() -> None:
    for gate_norm, apart in (("group", True), ("batch", False)):
        torch.manual_seed(0)
        network = evolve(SMALL, gate_norm=gate_norm).build(grid_of(1, 8, 8)).train()
        inputs = torch.randn(4, 4, 1, 8, 8)
        others = torch.cat([inputs[:2], 3 * torch.randn(2, 4, 1, 8, 8)])
        state = {name: value.clone() for name, value in network.state_dict().items()}
        first = network(inputs).field[:2].detach()
        network.load_state_dict(state)
        assert (difference(network(others).field[:2].detach(), first) <= 1e-5) == apart


def test_one_sample_can_be_trained_on_with_group_norm_only() -> None:
    inputs = torch.randn(1, 4, 1, 8, 8)
    network = evolve(SMALL, gate_norm="group").build(grid_of(1, 8, 8)).train()
    assert network(inputs).field.isfinite().all()
    with pytest.raises(ConfigError, match=r'one sample at a time; set gate_norm = "group"'):
        SMALL.build(grid_of(1, 8, 8)).train()(inputs)
    assert SMALL.build(grid_of(1, 8, 8)).eval()(inputs).field.isfinite().all()


@pytest.mark.parametrize("fields", [grid_of(2, 24, 8), grid_of(1, 4, 20, history=1, horizon=3), grid_of(2, 8, 4, 12)])
def test_any_grid_of_whole_patches_works_and_samples_do_not_mix_in_evaluation(fields: Fields) -> None:
    torch.manual_seed(0)
    network = evolve(SMALL, normalize=True).build(fields).eval()
    inputs = torch.randn(3, fields.history, len(fields.channels), *fields.grid)
    together = network(inputs).field
    assert together.shape == (3, fields.horizon, len(fields.channels), *fields.grid)
    alone = torch.cat([network(sample[None]).field for sample in inputs])
    assert difference(together.detach(), alone.detach()) <= 1e-5


def test_every_parameter_has_a_gradient_in_training_though_few_experts_are_chosen() -> None:
    network = evolve(SMALL, classes=2, normalize=True).build(grid_of(1, 8, 8)).train()
    prediction: Prediction = network(torch.randn(2, 4, 1, 8, 8))
    assert prediction.class_logits is not None
    (prediction.field.sum() + prediction.class_logits.sum() + prediction.penalties["balance"]).backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_router_scores_are_the_softmax_of_all_scores_of_every_block() -> None:
    network, golden = published()
    inputs = ours(golden["input"])
    seen: list[Routing] = []
    handle = network.eval().blocks[0].MoE.gating.register_forward_hook(lambda *call: seen.append(call[2]))
    scores = router_scores(network, inputs)
    handle.remove()
    assert scores.shape == (4, 1, 16)
    assert difference(scores.sum(-1), torch.ones(4, 1)) <= 1e-6
    shares, chosen = scores[:, 0].topk(4)
    assert torch.equal(chosen, seen[0].chosen)
    assert difference(shares / shares.sum(1, keepdim=True), seen[0].shares) <= 1e-5


def test_parts_are_the_whole_and_the_router_is_one_of_them() -> None:
    network = evolve(SMALL, classes=2, normalize=True).build(grid_of(1, 8, 8))
    names = list(network.state_dict())
    patterns = [pattern for part in MoEPOT.parts.values() for pattern in part]
    assert all(any(fnmatchcase(name, pattern) for pattern in patterns) for name in names)
    for part, word in {"router": "gating", "features": "feature_extractor", "experts": "experts"}.items():
        mine = {name for name in names if any(fnmatchcase(name, item) for item in MoEPOT.parts[part])}
        assert mine == {name for name in names if word in name}


def test_weights_fit_another_grid_and_other_channels() -> None:
    old, new = grid_of(1, 8, 8), grid_of(2, 12, 8, history=5)
    weights, fresh = SMALL.build(old).state_dict(), SMALL.build(new).state_dict()
    for name in weights:
        adapted = adapted_weight(SMALL, name, fresh[name], old, new, weights)
        assert isinstance(adapted, Adapted), name
        assert adapted.weight.shape == fresh[name].shape, name


@pytest.mark.parametrize(("own", "other"), [((16, 16), (8, 12)), ((4, 8, 8), (8, 8, 4))])
def test_another_grid_is_predicted_and_routed_as_by_the_network_adapted_to_it(
    own: tuple[int, ...], other: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    old, new = grid_of(1, *own), grid_of(1, *other)
    network, adapted = SMALL.build(old).eval(), SMALL.build(new).eval()
    weights = network.state_dict()
    changes = {name: adapted_weight(SMALL, name, w, old, new, weights) for name, w in adapted.state_dict().items()}
    adapted.load_state_dict({name: change.weight for name, change in changes.items() if change is not None})
    inputs = torch.randn(3, 4, 1, *other)
    assert difference(network(inputs).field.detach(), adapted(inputs).field.detach()) <= 1e-6
    assert difference(router_scores(network, inputs), router_scores(adapted, inputs)) <= 1e-6


def test_with_another_number_of_experts_the_last_layer_of_the_gate_has_no_use() -> None:
    fields, fewer = grid_of(1, 8, 8), evolve(SMALL, routed_experts=4)
    weights, fresh = SMALL.build(fields).state_dict(), fewer.build(fields).state_dict()
    refused = [name for name, w in fresh.items() if adapted_weight(fewer, name, w, fields, fields, weights) is None]
    last = [f"blocks.{block}.MoE.gating.gate.7.{kind}" for block in range(2) for kind in ("weight", "bias")]
    assert refused == last


def test_a_published_checkpoint_gives_the_published_outputs() -> None:
    golden = load_file(GOLDEN / "moepot.safetensors")
    found = MoEPOT.from_published({"model": "MoEPOT", "width": 32, "n_layers": 1}, golden_weights(golden))
    assert found is not None
    assert isinstance(found.backbone, MoEPOT)
    assert (found.backbone.routed_experts, found.backbone.shared_experts, found.backbone.gate_norm) == (16, 2, "batch")
    temperature = "blocks.0.MoE.gating.temperature"
    assert float(found.weights[temperature]) == 0.5
    assert {temperature, "chosen_experts"} <= found.assumed.keys()
    assert found.mapped.keys() == golden_weights(golden).keys()
    network = found.backbone.build(found.fields).eval()
    network.load_state_dict({**found.weights, temperature: torch.tensor(2.0)})
    output = network(ours(golden["input"])).field.detach()
    assert difference(output, ours(golden["output"])) <= 1e-5


def test_weights_without_a_mixture_are_not_taken_for_published_ones() -> None:
    names = [name for name in golden_weights(load_file(GOLDEN / "moepot.safetensors")) if ".MoE." not in name]
    assert MoEPOT.from_published({}, dict.fromkeys(names, torch.zeros(()))) is None


@pytest.mark.parametrize(("size", "total", "activated"), [("tiny", 30, 17), ("small", 166, 90), ("medium", 489, 288)])
def test_presets_have_the_published_number_of_parameters(size: str, total: int, activated: int) -> None:
    """Published are whole millions, rounded down, of a network with the classification head."""
    settings = MoEPOT(size=size, **MoEPOT.presets[size], classes=12)
    with torch.device("meta"):
        network = settings.build(grid_of(4, 128, 128, history=10))
    count = sum(weight.numel() for weight in network.parameters())
    assert (count // 10**6, (count - settings.idle()) // 10**6) == (total, activated)


def test_idle_parameters_are_those_of_the_experts_that_a_sample_does_not_choose() -> None:
    mixture = Mixture(SMALL, 2)
    one = sum(weight.numel() for weight in mixture.experts[0].parameters())
    assert SMALL.idle() == 2 * (6 - 2) * one


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 20, "heads": 2}, ("width = 20", "multiple of 8", "such as 16")),
        ({"chosen_experts": 17}, ("chosen_experts = 17", "routed_experts = 16")),
        ({"chosen_experts": 0}, ("chosen_experts",)),
        ({"temperature": 0.4}, ("temperature = 0.4", "temperature_end = 0.5")),
        ({"temperature_decay": 1.5}, ("temperature_decay",)),
        ({"width": 16, "heads": 2, "mlp_ratio": 0.25}, ("mlp_ratio = 0.25", "4 features", "8 or more")),
        ({"width": 16, "heads": 2, "mlp_ratio": 0.75, "gate_norm": "group"}, ('gate_norm = "group"', "gives 12")),
        ({"size": "large"}, ("'large'", "tiny")),
        ({"balance": "entropy"}, ("balance", "cv_squared")),
        ({"routing": "top"}, ("routing", "softmax_then_top")),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below
        MoEPOT(**settings)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_patch_that_does_not_divide_the_grid_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"patch = 4 .* grid 64×62"):
        SMALL.build(grid_of(1, 64, 62))
