"""What a backbone promises."""

from __future__ import annotations

import copy
import pickle
from fnmatch import fnmatchcase

import attrs
import torch
from torch import Tensor, nn

from opframe_registry.errors import ConfigError
from opframe_registry.testing import adaptation
from opframe_registry.testing.networks import (
    accepted,
    as_large,
    conditions_of,
    distance,
    field_of,
    first_network,
    inputs_of,
    network_of,
    normalised_too,
    part_of,
    predicted,
    settings_of,
    uses,
    various_conditions,
    with_weights,
)
from opframe_registry.testing.promise import Case, NotApplicableError, Promise, require
from opframe_registry.values import Fields


def predictions_have_the_shape_of_the_fields(case: Case) -> None:
    """A prediction is finite float32 (B, horizon, C, *grid), in training and in evaluation; inputs stay as they are."""
    for fields, network in normalised_too(case):
        inputs = inputs_of(fields, 2)
        before, expected = inputs.clone(), (2, fields.horizon, len(fields.channels), *fields.grid)
        for training in (True, False):
            prediction = predicted(network.train(training), inputs, fields)
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
    for fields, network in accepted(case):
        inputs = inputs_of(fields)
        for what, conditions in various_conditions(fields, len(inputs)).items():
            field = network(inputs.where(conditions.valid[:, None], 0.0), conditions).field
            require(bool(field.isfinite().all()), f"the field is not finite where {what}")
    fields, network = first_network(case)
    used = [name for name in vars(conditions_of(fields, 1)) if uses(network, fields, name)]
    case.facts.append(f"of the conditions it uses {', '.join(used) or 'none'}")


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
    case = as_large(case)
    for fields, _ in accepted(case):
        longer = attrs.evolve(fields, history=max(2, fields.history))  # one frame tells nothing of what depends on time
        network = network_of(settings_of(case), longer)
        found = _gradients(network, inputs_of(longer, 8), longer)
        broken = [name for name, gradient in found.items() if not gradient.isfinite().all()]
        require(not broken, f"the gradient of {', '.join(broken)} is not finite")
        untouched = [name for name, gradient in found.items() if not gradient.any()]
        count = sum(found[name].numel() for name in untouched)
        require("the inputs" not in untouched, "no gradient reaches the inputs")
        require(count <= settings_of(case).idle(), f"no gradient reaches {', '.join(untouched)}")


def idle_counts_what_one_sample_does_not_use(case: Case) -> None:
    """`idle()` is the number of parameters that the prediction of one sample does not use."""
    case = as_large(case)
    fields, network = with_weights(case)
    found = _gradients(network, inputs_of(fields, 1), fields)
    untouched = sum(gradient.numel() for gradient in found.values() if not gradient.any())
    zeros = sum(int((gradient == 0).sum()) for gradient in found.values())  # experts may be slices of one tensor
    idle = settings_of(case).idle()
    require(untouched <= idle <= zeros, f"idle() = {idle}, but {untouched} to {zeros} parameters are not used")


def a_seed_decides_the_weights(case: Case) -> None:
    """torch's seed decides the fresh weights, and the weights decide what is predicted, bit by bit."""
    case = as_large(case)
    fields, _ = with_weights(case)
    one, same, other = (network_of(settings_of(case), fields, seed) for seed in (3, 3, 4))
    names, inputs = one.state_dict().keys(), inputs_of(fields)
    alike = all(torch.equal(one.state_dict()[name], same.state_dict()[name]) for name in names)
    require(alike, "one seed gives other weights the second time")
    first = field_of(one, inputs, fields)
    require(
        torch.equal(first, field_of(one, inputs, fields)), "the same network predicts something else the second time"
    )
    require(torch.equal(first, field_of(same, inputs, fields)), "the same weights predict something else")
    require(not torch.equal(first, field_of(other, inputs, fields)), "another seed gives the same weights")


@torch.no_grad()
def samples_do_not_influence_each_other(case: Case) -> None:
    """In evaluation, what is predicted for a sample does not depend on the others in its batch."""
    for fields, network in normalised_too(case):
        scale = torch.tensor([1.0, 10.0, 0.1, 1.0]).view(-1, *[1] * (2 + len(fields.grid)))
        inputs, conditions = inputs_of(fields) * scale, conditions_of(fields, 4, known=True)
        network.train()(inputs, conditions)  # whatever training changes
        together = network.eval()(inputs, conditions).field
        for index in range(4):
            own = slice(index, index + 1)
            alone = network(inputs[own], part_of(conditions, own)).field[0]
            apart = distance(together[index], alone)
            require(apart <= 1e-5, f"sample {index} alone is predicted otherwise, by {apart:.1e}")


def it_works_under_autocast(case: Case) -> None:
    """Under bfloat16 autocast it predicts nearly the same, and returns float32."""
    for fields, network in normalised_too(case):
        inputs = inputs_of(fields)
        expected = field_of(network, inputs, fields)
        with torch.autocast("cpu", torch.bfloat16):
            field = field_of(network, inputs, fields)
        require(field.dtype == torch.float32, f"the field is {field.dtype} under autocast")
        apart = distance(field, expected)
        require(apart <= 0.1, f"the field is another one under bfloat16 autocast, by {apart:.1e}")


def a_training_step_compiles_to_one_graph(case: Case) -> None:
    """torch.compile traces a step of training without a break, and computes the same."""
    fields, network = with_weights(as_large(case))
    inputs, conditions = inputs_of(fields), conditions_of(fields, 4)
    same = copy.deepcopy(network).train()
    compiled = torch.compile(network.train(), backend="eager", fullgraph=True)
    field = compiled(inputs, conditions).field
    apart = distance(field.detach(), same(inputs, conditions).field.detach())
    require(apart <= 1e-5, f"compiled, it predicts something else, by {apart:.1e}")
    torch.autograd.backward(field.sum())


def the_state_dict_holds_all_that_training_changes(case: Case) -> None:
    """What a network learns is in its state dict, and in nothing else."""
    case = as_large(case)
    fields, _ = first_network(case)
    trained, fresh = (network_of(settings_of(case), fields, seed) for seed in (0, 1))
    inputs = inputs_of(fields)
    predicted(trained.train(), 3 * inputs + 1, fields)
    state = trained.state_dict()
    wrong = [name for name, value in state.items() if not isinstance(value, Tensor)]
    require(not wrong, f"the state dict holds '{', '.join(wrong)}', which are no tensors")
    fresh.load_state_dict({name: value.clone() for name, value in state.items()})
    same = torch.equal(field_of(trained.eval(), inputs, fields), field_of(fresh.eval(), inputs, fields))
    require(same, "a network with the same state dict predicts something else")
    after = [predicted(network.train(), inputs, fields).field for network in (trained, fresh)]
    require(torch.equal(*after), "a network with the same state dict goes on otherwise in training")


def it_pickles_and_copies(case: Case) -> None:
    """A network can be pickled and copied, and its copies predict the same."""
    fields, network = first_network(case)
    inputs = inputs_of(fields)
    expected = field_of(network, inputs, fields)
    for what, other in (("pickled", pickle.loads(pickle.dumps(network))), ("deep", copy.deepcopy(network))):
        require(torch.equal(field_of(other, inputs, fields), expected), f"a {what} copy predicts something else")


def parts_are_the_whole(case: Case) -> None:
    """`parts` name every weight, and no part is empty."""
    _, network = with_weights(as_large(case))
    parts = type(settings_of(case)).parts
    if not parts:
        raise NotApplicableError("it names no parts")
    names = network.state_dict().keys()
    found = {
        part: {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}
        for part, patterns in parts.items()
    }
    missing = set(names) - set[str]().union(*found.values())
    require(not missing, f"no part has {', '.join(sorted(missing)[:5])}")
    empty = [part for part, own in found.items() if not own]
    require(not empty, f"nothing belongs to the part {', '.join(empty)}")


def presets_can_be_built(case: Case) -> None:
    """Every preset builds."""
    backbone = type(settings_of(case))
    if not backbone.presets:
        raise NotApplicableError("it has no presets")
    fields = Fields(channels=("u", "v", "p", "rho"), grid=(128, 128), history=10)
    for size, settings in backbone.presets.items():
        with torch.device("meta"):
            backbone(**{**settings, "size": size}).build(fields)


def a_tiny_problem_is_overfitted(case: Case) -> None:
    """A hundred steps of Adam on four samples lower the error to a fifth."""
    fields = Fields(channels=("u",), grid=(16, 16), history=2)
    with_weights(case)
    phase = torch.arange(16) / 16 * 2 * torch.pi
    waves = [
        torch.sin((k + 1) * phase[:, None] + 0.4 * t) * torch.cos(phase + 0.3 * k) for k in range(4) for t in range(3)
    ]
    frames = torch.stack(waves).view(4, 3, 1, 16, 16)
    inputs, targets = frames[:, :2], frames[:, 2:]
    network = network_of(settings_of(case), fields).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    errors = []
    for _ in range(100):
        error = (predicted(network, inputs, fields).field - targets).norm() / targets.norm()
        optimizer.zero_grad()
        torch.autograd.backward(error)
        optimizer.step()
        errors.append(error.item())
    require(errors[-1] <= 0.2 * errors[0], f"the error falls from {errors[0]:.3f} to {errors[-1]:.3f} only")


def another_grid_is_refused_or_right(case: Case) -> None:
    """On a grid that it was not built for, a network raises ConfigError, or predicts on that grid."""
    for fields, network in accepted(case):
        other = attrs.evolve(fields, grid=tuple(size * 2 for size in fields.grid))
        try:
            field = field_of(network, inputs_of(other, 2), other)
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
    *adaptation.PROMISES,
    presets_can_be_built,
    a_tiny_problem_is_overfitted,
    another_grid_is_refused_or_right,
)
