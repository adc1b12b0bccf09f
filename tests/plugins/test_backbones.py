"""What every installed backbone promises, whoever wrote it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import attrs
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from opframe_registry import Backbone, ConfigError, Fields, Prediction, discover
from support import adapted_weight, waves

SMALL: Mapping[str, Mapping[str, Any]] = {
    "dpot": {"width": 16, "depth": 2, "heads": 2, "patch": 4, "output_width": 8, "classes": 3},
    "moepot": {"width": 16, "depth": 2, "heads": 2, "patch": 4, "output_width": 8, "classes": 3}
    | {"routed_experts": 4, "chosen_experts": 2},
    "fno": {"width": 8, "depth": 2, "modes": (4,), "classes": 3},
    "unet": {"width": 8, "levels": 2},
}
"""Settings that make a backbone small. One that is not named here is tested as its preset "mini", or its defaults."""

ALL_IN_USE: Mapping[str, Mapping[str, Any]] = {"moepot": {"chosen_experts": 4}}
"""Settings with which every parameter takes part in every prediction, where that is not so anyway."""

BACKBONES = {f"{plugin.distribution}:{item.name}": item for plugin, item in discover().offers(Backbone)}

FIELDS = {
    "one channel, one frame": Fields(channels=("u",), grid=(16, 24), history=1),
    "two frames ahead": Fields(channels=("u", "v", "w"), grid=(24, 16), history=4, horizon=2),
    "a line": Fields(channels=("u",), grid=(32,), history=4),
    "space": Fields(channels=("u", "v", "w"), grid=(8, 16, 8), history=2, horizon=2),
}

TRAINED = {name: item for name, item in BACKBONES.items() if item.name not in ("persistence", "linear")}
"""Those with weights."""

every_backbone = pytest.mark.parametrize("component", BACKBONES.values(), ids=BACKBONES.keys())
every_trained_backbone = pytest.mark.parametrize("component", TRAINED.values(), ids=TRAINED.keys())
all_fields = pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS.keys())


def small(component: type[Backbone], **keys: Any) -> Backbone:
    """A backbone with settings for tests."""
    known = {attribute.name for attribute in attrs.fields(component)}
    settings = SMALL.get(component.name) or component.presets.get("mini", {})
    return component(**{**settings, **{key: value for key, value in keys.items() if key in known}})


def in_use(component: type[Backbone], **keys: Any) -> Backbone:
    """The same, with every parameter in use."""
    return small(component, **ALL_IN_USE.get(component.name, {}), **keys)


def network_of(backbone: Backbone, fields: Fields = FIELDS["two frames ahead"], seed: int = 0) -> nn.Module:
    """A network in evaluation mode. A grid that the backbone refuses, as it may, skips the test."""
    torch.manual_seed(seed)
    try:
        return backbone.build(fields).eval()
    except ConfigError as error:
        pytest.skip(str(error))


def inputs_of(fields: Fields = FIELDS["two frames ahead"], samples: int = 4) -> Tensor:
    return torch.randn(samples, fields.history, len(fields.channels), *fields.grid)


def predicted(network: nn.Module, inputs: Tensor) -> Prediction:
    prediction = network(inputs)
    assert isinstance(prediction, Prediction)
    return prediction


def field_of(network: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return predicted(network, inputs).field


def difference(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


@every_backbone
def test_it_works_on_one_of_the_grids(component: type[Backbone]) -> None:
    refused = []
    for fields in FIELDS.values():
        try:
            small(component).build(fields)
        except ConfigError as error:
            refused.append(str(error))
    assert len(refused) < len(FIELDS), refused


@every_backbone
@all_fields
@pytest.mark.parametrize("normalize", [False, True])
def test_predictions_have_the_shape_of_the_fields(component: type[Backbone], fields: Fields, normalize: bool) -> None:
    network = network_of(small(component, normalize=normalize), fields)
    inputs = inputs_of(fields, samples=2)
    before = inputs.clone()
    for training in (True, False):
        prediction = predicted(network.train(training), inputs)
        assert prediction.field.shape == (2, fields.horizon, len(fields.channels), *fields.grid)
        assert prediction.field.dtype == torch.float32
        assert bool(torch.isfinite(prediction.field).all())
        assert all(penalty.ndim == 0 for penalty in prediction.penalties.values())
        assert prediction.class_logits is None or prediction.class_logits.shape[0] == 2
    assert torch.equal(inputs, before)


def gradients(network: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """Of everything that a network returns, with respect to each parameter and to the inputs."""
    inputs.requires_grad_()
    prediction = predicted(network, inputs)
    outputs = [prediction.field, *prediction.penalties.values()]
    outputs += [] if prediction.class_logits is None else [prediction.class_logits]
    torch.stack([(output * torch.randn_like(output)).sum() for output in outputs]).sum().backward()
    tensors = {"the inputs": inputs, **dict(network.named_parameters())}
    return {name: torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for name, tensor in tensors.items()}


@every_backbone
@all_fields
def test_gradients_reach_every_parameter_and_the_input(component: type[Backbone], fields: Fields) -> None:
    fields = attrs.evolve(fields, history=max(2, fields.history))  # one frame tells nothing of what depends on time
    for name, gradient in gradients(network_of(in_use(component, normalize=True), fields), inputs_of(fields)).items():
        assert bool(gradient.isfinite().all()), name
        assert bool(gradient.any()), name


@every_trained_backbone
def test_idle_parameters_are_those_without_gradient_from_one_sample(component: type[Backbone]) -> None:
    backbone = small(component, normalize=True)
    network = network_of(backbone)
    found = gradients(network, inputs_of(samples=1))
    untouched = sum(gradient.numel() for gradient in found.values() if not gradient.any())
    zeros = sum(int((gradient == 0).sum()) for gradient in found.values())  # experts may be slices of one tensor
    assert untouched <= backbone.idle() <= zeros
    assert backbone.idle() < sum(weight.numel() for weight in network.parameters())


@every_trained_backbone
def test_a_seed_decides_the_weights_and_the_weights_decide_the_prediction(component: type[Backbone]) -> None:
    one, same, other = (network_of(small(component, normalize=True), seed=seed) for seed in (3, 3, 4))
    names, inputs = one.state_dict().keys(), inputs_of()
    assert all(torch.equal(one.state_dict()[name], same.state_dict()[name]) for name in names)
    assert torch.equal(field_of(one, inputs), field_of(one, inputs))
    assert torch.equal(field_of(one, inputs), field_of(same, inputs))
    assert not torch.equal(field_of(one, inputs), field_of(other, inputs))


@every_backbone
@all_fields
def test_samples_do_not_influence_each_other_in_evaluation(component: type[Backbone], fields: Fields) -> None:
    network = network_of(small(component, normalize=True), fields)
    inputs = inputs_of(fields) * torch.tensor([1.0, 10.0, 0.1, 1.0]).view(-1, *[1] * (2 + len(fields.grid)))
    predicted(network.train(), inputs)  # whatever training changes
    together = field_of(network.eval(), inputs)
    for sample, alone in zip(together, inputs, strict=True):
        assert difference(sample, field_of(network, alone[None])[0]) <= 1e-5


@every_backbone
@all_fields
@pytest.mark.parametrize("normalize", [False, True])
def test_bfloat16_autocast_stays_close_and_returns_the_precision_of_the_input(
    component: type[Backbone], fields: Fields, normalize: bool
) -> None:
    network, inputs = network_of(in_use(component, normalize=normalize), fields), inputs_of(fields)
    expected = field_of(network, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        field = field_of(network, inputs)
    assert field.dtype == torch.float32
    assert difference(field, expected) <= 5e-2


@every_trained_backbone
def test_a_training_step_compiles_to_one_graph(component: type[Backbone]) -> None:
    network, inputs = network_of(small(component, normalize=True, depth=1)).train(), inputs_of()
    same = copy.deepcopy(network)
    prediction = predicted(torch.compile(network, backend="eager", fullgraph=True), inputs)
    assert difference(prediction.field.detach(), predicted(same, inputs).field.detach()) <= 1e-6
    prediction.field.sum().backward()


@every_backbone
def test_the_state_dict_holds_all_that_training_changes(component: type[Backbone]) -> None:
    backbone, inputs = small(component, normalize=True), inputs_of()
    trained, fresh = network_of(backbone, seed=0), network_of(backbone, seed=1)
    predicted(trained.train(), 3 * inputs + 1)
    fresh.load_state_dict(load(save(trained.state_dict())))
    assert torch.equal(field_of(trained.eval(), inputs), field_of(fresh.eval(), inputs))
    after = [predicted(network.train(), inputs) for network in (trained, fresh)]
    assert torch.equal(after[0].field, after[1].field)


@every_backbone
def test_the_parts_are_the_whole_and_none_is_empty(component: type[Backbone]) -> None:
    names = network_of(small(component, normalize=True)).state_dict().keys()
    found = {
        part: {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}
        for part, patterns in component.parts.items()
    }
    assert set().union(*found.values()) == set(names)
    assert all(found.values()), found


@every_backbone
@all_fields
def test_weights_fit_the_same_fields_as_they_are(component: type[Backbone], fields: Fields) -> None:
    backbone = small(component, normalize=True)
    trained, fresh = (network_of(backbone, fields, seed).state_dict() for seed in (0, 1))
    for name, weight in trained.items():
        adapted = adapted_weight(backbone, name, fresh[name].clone(), fields, fields, trained)
        assert adapted is not None, name
        assert torch.equal(adapted.weight, weight), name
        assert adapted.how == "", name


@every_trained_backbone
@pytest.mark.parametrize(
    "changes",
    [
        {"channels": ("a", "b", "c", "d", "e")},
        {"channels": ("a",), "history": 1},
        {"history": 7, "horizon": 1},
        {"horizon": 3},
        {"grid": (32, 40)},
        {"grid": (8, 16, 8)},
    ],
    ids=str,
)
def test_what_is_adapted_to_other_fields_fits_them(component: type[Backbone], changes: dict[str, Any]) -> None:
    source = FIELDS["two frames ahead"]
    target, backbone = attrs.evolve(source, **changes), small(component, normalize=True)
    old, network = network_of(backbone, source, seed=1).state_dict(), network_of(backbone, target)
    state, taken = network.state_dict(), 0
    for name, fresh in state.items():
        if name in old and (adapted := adapted_weight(backbone, name, fresh.clone(), source, target, old)):
            assert adapted.weight.shape == fresh.shape, name
            assert adapted.how or torch.equal(adapted.weight, old[name]), name
            state[name], taken = adapted.weight, taken + 1
    assert taken
    network.load_state_dict(state)
    assert bool(torch.isfinite(field_of(network, inputs_of(target))).all())


def test_backbones_without_weights_are_those_that_are_known_to_be() -> None:
    fields = FIELDS["two frames ahead"]
    without = {name for name, item in BACKBONES.items() if not [*network_of(small(item), fields).parameters()]}
    assert without == {"opframe:persistence", "opframe:linear"} == BACKBONES.keys() - TRAINED.keys()


@every_backbone
def test_its_presets_can_be_built(component: type[Backbone]) -> None:
    fields = Fields(channels=("u", "v", "p", "rho"), grid=(128, 128), history=10)
    for size, settings in component.presets.items():
        with torch.device("meta"):
            component(**{**settings, "size": size}).build(fields)


@every_trained_backbone
def test_a_tiny_problem_is_overfitted(component: type[Backbone]) -> None:
    fields = Fields(channels=("u",), grid=(16, 16), history=2)
    frames = torch.from_numpy(waves(4, 3, 16)).permute(0, 3, 4, 1, 2)  # (B, T, C, X, Y)
    inputs, targets = frames[:, :2], frames[:, 2:]
    network = network_of(small(component), fields).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    errors = []
    for _ in range(40):
        error = (predicted(network, inputs).field - targets).norm() / targets.norm()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] <= 0.2 * errors[0]
