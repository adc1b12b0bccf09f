"""What a backbone promises."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn

from opframe_registry.backbone import Backbone
from opframe_registry.errors import ConfigError
from opframe_registry.testing.promise import Case, NotApplicableError, Promise, require
from opframe_registry.values import Adapted, Change, Conditions, Fields, Prediction

FIELDS = (
    Fields(channels=("u", "v", "w"), grid=(24, 16), history=4, horizon=2, parameters=("viscosity",)),
    Fields(channels=("u",), grid=(16, 24), history=1),
    Fields(channels=("u",), grid=(32,), history=4),
    Fields(channels=("u", "v", "w"), grid=(8, 16, 8), history=2, horizon=2),
)
"""Fields in two, one and three dimensions; a backbone may refuse some of them, not all."""
_CHANGES: tuple[dict[str, Any], ...] = (
    {"channels": ("a", "b", "c", "d", "e")},
    {"channels": ("a",), "history": 1},
    {"history": 7, "horizon": 1},
    {"horizon": 3},
    {"grid": (32, 40)},
    {"grid": (8, 16, 8)},
)


def conditions_of(fields: Fields, samples: int, known: bool = False) -> Conditions:
    """What a model is told of samples: nothing, or something of everything."""
    value = 0.1 if known else torch.nan
    axes = len(fields.grid)
    return Conditions(
        parameters=torch.full((samples, len(fields.parameters)), value),
        time_step=torch.full((samples,), value),
        spacing=torch.full((samples, axes), value),
        boundary=torch.full((samples, axes, 2), int(known)),
        valid=torch.ones(1, 1, *fields.grid, dtype=torch.bool),
        dataset=torch.zeros(samples, dtype=torch.int64),
    )


def _settings(case: Case) -> Backbone:
    return cast("Backbone", case.component)


def _network(backbone: Backbone, fields: Fields, seed: int = 0) -> nn.Module:
    """In evaluation mode."""
    torch.manual_seed(seed)
    return backbone.build(fields).eval()


def _accepted(case: Case) -> Iterator[tuple[Fields, nn.Module]]:
    """Fresh networks, for those of the fields that the backbone takes."""
    refused = []
    for fields in FIELDS:
        try:
            network = _network(_settings(case), fields)
        except ConfigError as error:
            refused.append(f"{fields.grid}: {error}")
            continue
        yield fields, network
    require(len(refused) < len(FIELDS), f"it refuses all grids that were tried: {'; '.join(refused)}")


def _first(case: Case) -> tuple[Fields, nn.Module]:
    return next(_accepted(case))


def _trained(case: Case) -> tuple[Fields, nn.Module]:
    """The first, unless it has no weights, as baselines have none."""
    fields, network = _first(case)
    if next(network.parameters(), None) is None:
        raise NotApplicableError("it has no weights")
    return fields, network


def _inputs(fields: Fields, samples: int = 4) -> Tensor:
    return torch.randn(samples, fields.history, len(fields.channels), *fields.grid)


def _predicted(network: nn.Module, inputs: Tensor, fields: Fields) -> Prediction:
    prediction = network(inputs, conditions_of(fields, len(inputs)))
    require(isinstance(prediction, Prediction), f"a call returns {type(prediction).__name__}, expected a Prediction")
    return cast("Prediction", prediction)


@torch.no_grad()
def _field(network: nn.Module, inputs: Tensor, fields: Fields) -> Tensor:
    return _predicted(network, inputs, fields).field


def _distance(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm().clamp(min=1e-12))


def predictions_have_the_shape_of_the_fields(case: Case) -> None:
    """A prediction is finite float32 (B, horizon, C, *grid), in training and in evaluation; inputs stay as they are."""
    for fields, network in _accepted(case):
        inputs = _inputs(fields, 2)
        before, expected = inputs.clone(), (2, fields.horizon, len(fields.channels), *fields.grid)
        for training in (True, False):
            prediction = _predicted(network.train(training), inputs, fields)
            found = tuple(prediction.field.shape)
            require(found == expected, f"the field has the shape {found}, expected {expected}")
            require(prediction.field.dtype == torch.float32, f"the field is {prediction.field.dtype}")
            require(bool(prediction.field.isfinite().all()), "the field holds values that are not finite")
            flat = all(penalty.ndim == 0 for penalty in prediction.penalties.values())
            require(flat, "a penalty is no scalar")
            logits = prediction.class_logits
            require(logits is None or len(logits) == 2, "class_logits have no row for each sample")
        require(torch.equal(inputs, before), "the frames that it is given are changed")


def conditions_are_used_or_ignored(case: Case) -> None:
    """A network is called with (window, conditions); whatever is known of them or not, what it predicts is finite."""
    for fields, network in _accepted(case):
        for known in (False, True):
            field = network(_inputs(fields), conditions_of(fields, 4, known)).field
            what = "known" if known else "unknown (NaN)"
            require(bool(field.isfinite().all()), f"the field is not finite where conditions are {what}")


def _gradients(network: nn.Module, inputs: Tensor, fields: Fields) -> dict[str, Tensor]:
    """With respect to inputs and parameters, where conditions are known and where they are not, taken together."""
    inputs.requires_grad_()
    outputs: list[Tensor] = []
    for known in (True, False):
        prediction = network(inputs, conditions_of(fields, len(inputs), known))
        outputs += [prediction.field, *prediction.penalties.values()]
        outputs += [] if prediction.class_logits is None else [prediction.class_logits]
    torch.autograd.backward(torch.stack([(output * torch.randn_like(output)).sum() for output in outputs]).sum())
    tensors = {"the inputs": inputs, **dict(network.named_parameters())}
    return {name: torch.zeros_like(each) if each.grad is None else each.grad for name, each in tensors.items()}


def gradients_reach_the_inputs_and_every_parameter(case: Case) -> None:
    """Every parameter has a finite gradient that is not zero, but for those that `idle` counts; so have the inputs."""
    for fields, _ in _accepted(case):
        longer = attrs.evolve(fields, history=max(2, fields.history))  # one frame tells nothing of what depends on time
        network = _network(_settings(case), longer)
        found = _gradients(network, _inputs(longer, 8), longer)
        broken = [name for name, gradient in found.items() if not gradient.isfinite().all()]
        require(not broken, f"the gradient of {', '.join(broken)} is not finite")
        untouched = [name for name, gradient in found.items() if not gradient.any()]
        count = sum(found[name].numel() for name in untouched)
        require("the inputs" not in untouched, "no gradient reaches the inputs")
        require(count <= _settings(case).idle(), f"no gradient reaches {', '.join(untouched)}")


def idle_counts_what_one_sample_does_not_use(case: Case) -> None:
    """`idle()` is the number of parameters that the prediction of one sample does not use."""
    fields, network = _trained(case)
    found = _gradients(network, _inputs(fields, 1), fields)
    untouched = sum(gradient.numel() for gradient in found.values() if not gradient.any())
    zeros = sum(int((gradient == 0).sum()) for gradient in found.values())  # experts may be slices of one tensor
    idle = _settings(case).idle()
    require(untouched <= idle <= zeros, f"idle() = {idle}, but {untouched} to {zeros} parameters are not used")


def a_seed_decides_the_weights(case: Case) -> None:
    """torch's seed decides the fresh weights, and the weights decide what is predicted, bit by bit."""
    fields, _ = _trained(case)
    one, same, other = (_network(_settings(case), fields, seed) for seed in (3, 3, 4))
    names, inputs = one.state_dict().keys(), _inputs(fields)
    alike = all(torch.equal(one.state_dict()[name], same.state_dict()[name]) for name in names)
    require(alike, "one seed gives other weights the second time")
    first = _field(one, inputs, fields)
    require(torch.equal(first, _field(one, inputs, fields)), "the same network predicts something else the second time")
    require(torch.equal(first, _field(same, inputs, fields)), "the same weights predict something else")
    require(not torch.equal(first, _field(other, inputs, fields)), "another seed gives the same weights")


def samples_do_not_influence_each_other(case: Case) -> None:
    """In evaluation, what is predicted for a sample does not depend on the others in its batch."""
    for fields, network in _accepted(case):
        scale = torch.tensor([1.0, 10.0, 0.1, 1.0]).view(-1, *[1] * (2 + len(fields.grid)))
        inputs = _inputs(fields) * scale
        _predicted(network.train(), inputs, fields)  # whatever training changes
        together = _field(network.eval(), inputs, fields)
        for index in range(4):
            alone = _field(network, inputs[index : index + 1], fields)[0]
            apart = _distance(together[index], alone)
            require(apart <= 1e-5, f"sample {index} alone is predicted otherwise, by {apart:.1e}")


def it_works_under_autocast(case: Case) -> None:
    """Under bfloat16 autocast it predicts nearly the same, and returns float32."""
    for fields, network in _accepted(case):
        inputs = _inputs(fields)
        expected = _field(network, inputs, fields)
        with torch.autocast("cpu", torch.bfloat16):
            field = _field(network, inputs, fields)
        require(field.dtype == torch.float32, f"the field is {field.dtype} under autocast")
        apart = _distance(field, expected)
        require(apart <= 0.1, f"the field is another one under bfloat16 autocast, by {apart:.1e}")


def a_training_step_compiles_to_one_graph(case: Case) -> None:
    """torch.compile traces a step of training without a break, and computes the same."""
    fields, network = _trained(case)
    inputs, conditions = _inputs(fields), conditions_of(fields, 4)
    same = copy.deepcopy(network).train()
    compiled = torch.compile(network.train(), backend="eager", fullgraph=True)
    field = compiled(inputs, conditions).field
    apart = _distance(field.detach(), same(inputs, conditions).field.detach())
    require(apart <= 1e-5, f"compiled, it predicts something else, by {apart:.1e}")
    torch.autograd.backward(field.sum())


def the_state_dict_holds_all_that_training_changes(case: Case) -> None:
    """What a network learns is in its state dict, and in nothing else."""
    fields, _ = _first(case)
    trained, fresh = (_network(_settings(case), fields, seed) for seed in (0, 1))
    inputs = _inputs(fields)
    _predicted(trained.train(), 3 * inputs + 1, fields)
    state = trained.state_dict()
    wrong = [name for name, value in state.items() if not isinstance(value, Tensor)]
    require(not wrong, f"the state dict holds '{', '.join(wrong)}', which are no tensors")
    fresh.load_state_dict({name: value.clone() for name, value in state.items()})
    same = torch.equal(_field(trained.eval(), inputs, fields), _field(fresh.eval(), inputs, fields))
    require(same, "a network with the same state dict predicts something else")
    after = [_predicted(network.train(), inputs, fields).field for network in (trained, fresh)]
    require(torch.equal(*after), "a network with the same state dict goes on otherwise in training")


def it_pickles_and_copies(case: Case) -> None:
    """A network can be pickled and copied, and its copies predict the same."""
    fields, network = _first(case)
    inputs = _inputs(fields)
    expected = _field(network, inputs, fields)
    for what, other in (("pickled", pickle.loads(pickle.dumps(network))), ("deep", copy.deepcopy(network))):
        require(torch.equal(_field(other, inputs, fields), expected), f"a {what} copy predicts something else")


def parts_are_the_whole(case: Case) -> None:
    """`parts` name every weight, and no part is empty."""
    fields, network = _trained(case)
    parts = type(_settings(case)).parts
    if not parts:
        raise NotApplicableError("it names no parts")
    with suppress(ConfigError):  # which has parts of its own, where it can be had
        network = _network(attrs.evolve(_settings(case), normalize=True), fields)
    names = network.state_dict().keys()
    found = {
        part: {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}
        for part, patterns in parts.items()
    }
    missing = set(names) - set[str]().union(*found.values())
    require(not missing, f"no part has {', '.join(sorted(missing)[:5])}")
    empty = [part for part, own in found.items() if not own]
    require(not empty, f"nothing belongs to the part {', '.join(empty)}")


def _adapted(
    backbone: Backbone, old: dict[str, Tensor], fresh: dict[str, Tensor], source: Fields, target: Fields
) -> Callable[[str], Adapted | None]:
    def one(name: str) -> Adapted | None:
        change = Change(
            name=name, weight=old[name], fresh=fresh[name].clone(), source=source, target=target, weights=old
        )
        return backbone.adapt(change)

    return one


def weights_fit_the_same_fields_as_they_are(case: Case) -> None:
    """Adapted to the fields that it was trained with, every weight stays as it is, without a word."""
    for fields, network in _accepted(case):
        old, fresh = dict(network.state_dict()), dict(_network(_settings(case), fields, 1).state_dict())
        adapt = _adapted(_settings(case), old, fresh, fields, fields)
        for name, weight in old.items():
            adapted = adapt(name)
            kept = adapted is not None and torch.equal(adapted.weight, weight)
            require(kept, f"'{name}' is not taken as it is")
            how = "" if adapted is None else adapted.how
            require(how == "", f"'{name}' is said to be changed: {how}")


def adapted_weights_fit_other_fields(case: Case) -> None:
    """What is adapted to other channels, history, horizon or grid has the shape of the weight that it replaces."""
    source, network = _trained(case)
    old = dict(network.state_dict())
    taken = 0
    for change in _CHANGES:
        target = attrs.evolve(source, **change)
        try:
            other = _network(_settings(case), target)
        except ConfigError:
            continue
        fresh = dict(other.state_dict())
        adapt = _adapted(_settings(case), old, fresh, source, target)
        for name in old.keys() & fresh.keys():
            adapted = adapt(name)
            if adapted is None:
                continue
            shape, expected = tuple(adapted.weight.shape), tuple(fresh[name].shape)
            require(shape == expected, f"'{name}' has the shape {shape} for {change}, expected {expected}")
            fresh[name], taken = adapted.weight, taken + 1
        other.load_state_dict(fresh)
        finite = bool(_field(other, _inputs(target), target).isfinite().all())
        require(finite, f"adapted to {change}, it predicts values that are not finite")
    require(taken > 0, "no weight at all is adapted to other fields")


def presets_can_be_built(case: Case) -> None:
    """Every preset builds."""
    backbone = type(_settings(case))
    if not backbone.presets:
        raise NotApplicableError("it has no presets")
    fields = Fields(channels=("u", "v", "p", "rho"), grid=(128, 128), history=10)
    for size, settings in backbone.presets.items():
        with torch.device("meta"):
            backbone(**{**settings, "size": size}).build(fields)


def a_tiny_problem_is_overfitted(case: Case) -> None:
    """A hundred steps of Adam on four samples lower the error to a fifth."""
    fields = Fields(channels=("u",), grid=(16, 16), history=2)
    _trained(case)
    phase = torch.arange(16) / 16 * 2 * torch.pi
    waves = [
        torch.sin((k + 1) * phase[:, None] + 0.4 * t) * torch.cos(phase + 0.3 * k) for k in range(4) for t in range(3)
    ]
    frames = torch.stack(waves).view(4, 3, 1, 16, 16)
    inputs, targets = frames[:, :2], frames[:, 2:]
    network = _network(_settings(case), fields).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    errors = []
    for _ in range(100):
        error = (_predicted(network, inputs, fields).field - targets).norm() / targets.norm()
        optimizer.zero_grad()
        torch.autograd.backward(error)
        optimizer.step()
        errors.append(error.item())
    require(errors[-1] <= 0.2 * errors[0], f"the error falls from {errors[0]:.3f} to {errors[-1]:.3f} only")


def another_grid_is_refused_or_right(case: Case) -> None:
    """On a grid that it was not built for, a network raises ConfigError, or predicts on that grid."""
    for fields, network in _accepted(case):
        other = attrs.evolve(fields, grid=tuple(size * 2 for size in fields.grid))
        try:
            field = _field(network, _inputs(other, 2), other)
        except ConfigError:
            continue
        expected = (2, fields.horizon, len(fields.channels), *other.grid)
        require(tuple(field.shape) == expected, f"on the grid {other.grid} the field is {tuple(field.shape)}")


PROMISES: tuple[Promise, ...] = (
    predictions_have_the_shape_of_the_fields,
    conditions_are_used_or_ignored,
    gradients_reach_the_inputs_and_every_parameter,
    idle_counts_what_one_sample_does_not_use,
    a_seed_decides_the_weights,
    samples_do_not_influence_each_other,
    it_works_under_autocast,
    a_training_step_compiles_to_one_graph,
    the_state_dict_holds_all_that_training_changes,
    it_pickles_and_copies,
    parts_are_the_whole,
    weights_fit_the_same_fields_as_they_are,
    adapted_weights_fit_other_fields,
    presets_can_be_built,
    a_tiny_problem_is_overfitted,
    another_grid_is_refused_or_right,
)
