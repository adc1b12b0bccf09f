"""What an objective promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import attrs
import torch
from torch import Tensor, nn

from opframe_registry.components import Objective
from opframe_registry.errors import ConfigError
from opframe_registry.testing.networks import conditions_of, part_of
from opframe_registry.testing.promise import Case, NotApplicableError, Promise, require
from opframe_registry.values import Batch, Conditions, Fields, Prediction

FIELDS = Fields(channels=("u", "v"), grid=(12, 10), history=3)


class _Model(nn.Module):
    """Predicts a weighted mean of what it sees, and keeps what it was called with."""

    def __init__(self, horizon: int = 1) -> None:
        super().__init__()
        self.horizon, self.calls = horizon, list[tuple[object, object]]()
        self.weight = nn.Parameter(torch.tensor([0.7, 0.2]))

    def forward(self, window: Tensor, conditions: Conditions) -> Prediction:
        self.calls.append((window, conditions))
        field = self.weight[0] * window.mean(1, keepdim=True) + self.weight[1] * window[:, -1:]
        return Prediction(field=field.expand(-1, self.horizon, *field.shape[2:]))


def _batch(case: Case, samples: int = 6) -> Batch:
    frames = cast("Objective", case.component).frames
    generator = torch.Generator().manual_seed(5)
    shape = (len(FIELDS.channels), *FIELDS.grid)
    return Batch(
        inputs=torch.randn(samples, FIELDS.history, *shape, generator=generator),
        targets=torch.randn(samples, frames, *shape, generator=generator),
        mask=torch.ones(1, 1, 1, *[1] * len(FIELDS.grid)),
        conditions=conditions_of(FIELDS, samples, known=True),
        seeds=torch.arange(samples) * 7919 + 3,
    )


def _losses(case: Case, model: _Model, batch: Batch) -> Mapping[str, Tensor]:
    fields = attrs.evolve(FIELDS, horizon=model.horizon)
    return cast("Objective", case.component).build(fields)(model, batch)


def _total(case: Case, model: _Model, batch: Batch) -> Tensor:
    return torch.stack([value for value in _losses(case, model, batch).values() if value.ndim == 0]).sum()


def _gradient(case: Case, model: _Model, batch: Batch) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient."""
    total = _total(case, model, batch)
    torch.autograd.backward(total)
    require(model.weight.grad is not None, "no gradient reaches the backbone")
    return total.detach(), cast("Tensor", model.weight.grad)


def _part(batch: Batch, chosen: slice) -> Batch:
    return attrs.evolve(
        batch,
        inputs=batch.inputs[chosen],
        targets=batch.targets[chosen],
        mask=batch.mask if len(batch.mask) == 1 else batch.mask[chosen],
        conditions=part_of(batch.conditions, chosen),
        seeds=batch.seeds[chosen],
    )


def losses_are_named_finite_scalars(case: Case) -> None:
    """A loss function returns a mapping from names to finite scalars, and to values (B,) that have no gradient."""
    losses = _losses(case, _Model(), _batch(case))
    require(isinstance(losses, Mapping) and len(losses) > 0, f"it returns {type(losses).__name__}, expected a mapping")
    for name, value in losses.items():
        right = isinstance(name, str) and isinstance(value, Tensor) and value.ndim <= 1
        require(right, f"'{name}' is {value!r}, expected a scalar tensor")
        require(bool(value.isfinite().all()), f"'{name}' is {value.tolist()}")
        if value.ndim:
            of_samples = len(value) == 6 and not value.requires_grad
            require(of_samples, f"'{name}' is {value!r}, expected a value of each of 6 samples, without a gradient")
    require(any(value.ndim == 0 for value in losses.values()), "there is nothing to minimise")


def gradients_reach_the_backbone(case: Case) -> None:
    """Every weight that a prediction depends on has a finite gradient that is not zero."""
    model = _Model()
    torch.autograd.backward(_total(case, model, _batch(case)))
    gradient = model.weight.grad
    right = gradient is not None and bool(gradient.isfinite().all()) and bool((gradient != 0).all())
    require(right, f"the gradient of the backbone's weights is {gradient}")


def it_is_decided_by_seeds(case: Case) -> None:
    """The same batch with the same seeds has the same loss, whatever random numbers were drawn before."""
    torch.manual_seed(1)
    first = _total(case, _Model(), _batch(case))
    torch.manual_seed(2)
    torch.randn(10)
    require(torch.equal(first, _total(case, _Model(), _batch(case))), "the loss is another one the second time")


def it_does_not_depend_on_how_a_batch_is_split(case: Case) -> None:
    """The loss of a batch, and its gradient, are the means of those of its equal parts, however many."""
    batch = _batch(case)
    whole, gradient = _gradient(case, _Model(), batch)
    parts = [_gradient(case, _Model(), _part(batch, slice(first, first + 2))) for first in (0, 2, 4)]
    mean, steps = (torch.stack(values).mean(0) for values in zip(*parts, strict=True))
    close = torch.allclose(whole, mean, rtol=1e-5, atol=1e-12)
    require(close, f"the mean over three parts is {mean.item():.6g}, the whole {whole.item():.6g}")
    close = torch.allclose(gradient, steps, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))
    require(close, f"the mean gradient of three parts is {steps.tolist()}, that of the whole {gradient.tolist()}")


def _masked(batch: Batch, mask: Tensor, valid: Tensor) -> Batch:
    told = {name: getattr(batch.conditions, name) for name in vars(batch.conditions)}
    inputs = batch.inputs.where(valid[:, None], 0.0)
    return attrs.evolve(batch, inputs=inputs, mask=mask, conditions=Conditions(**{**told, "valid": valid}))


def what_is_masked_does_not_count(case: Case) -> None:
    """Where the mask is zero, targets change neither the loss nor its gradient, whatever they hold."""
    batch = _batch(case)
    mask = torch.ones_like(batch.targets)
    mask[..., :4] = 0
    valid = torch.ones(len(mask), 1, *FIELDS.grid, dtype=torch.bool)
    valid[..., :4] = False
    masked = _masked(batch, mask, valid)
    other = attrs.evolve(masked, targets=batch.targets.where(mask > 0, 1e3))
    found = [_gradient(case, _Model(), each) for each in (masked, other)]
    same = all(torch.allclose(one, two, rtol=1e-6) for one, two in zip(*found, strict=True))
    require(same, "targets that are masked change the loss or its gradient")
    require(bool(found[0][0].isfinite()), "the loss is not finite where something is masked")


def a_sample_may_have_nothing_that_counts(case: Case) -> None:
    """A sample, channel or frame that is masked whole leaves loss and gradient finite."""
    batch = _batch(case)
    for what, place in (("sample", (0,)), ("channel", (slice(None), slice(None), 1)), ("frame", (slice(None), 0))):
        mask = torch.ones_like(batch.targets)
        mask[place] = 0
        valid = torch.ones(len(mask), 1, *FIELDS.grid, dtype=torch.bool)
        valid[0] = what != "sample"
        loss, gradient = _gradient(case, _Model(), _masked(batch, mask, valid))
        finite = bool(loss.isfinite() and gradient.isfinite().all())
        require(finite, f"loss {loss.item()}, gradient {gradient.tolist()} where a whole {what} is masked")


def a_perfect_prediction_has_a_finite_gradient(case: Case) -> None:
    """Where prediction and target are equal, or both zero, loss and gradient are finite."""
    batch = _batch(case)
    zeros = attrs.evolve(batch, inputs=torch.zeros_like(batch.inputs), targets=torch.zeros_like(batch.targets))
    loss, gradient = _gradient(case, _Model(), zeros)
    finite = bool(loss.isfinite() and gradient.isfinite().all())
    require(finite, f"loss {loss.item()}, gradient {gradient.tolist()} for predictions and targets of zero")


def the_batch_stays_as_it_is(case: Case) -> None:
    """Nothing of a batch is changed, as it may be looked at again."""
    batch = _batch(case)
    tensors = {name: getattr(batch, name) for name in ("inputs", "targets", "mask", "seeds")}
    tensors |= {f"conditions.{name}": value for name, value in vars(batch.conditions).items()}
    before = {name: value.clone() for name, value in tensors.items()}
    _total(case, _Model(), batch)
    changed = [name for name, value in tensors.items() if not torch.equal(value, before[name])]
    require(not changed, f"it changes {', '.join(changed)}")


def the_backbone_is_called_as_it_is_trained(case: Case) -> None:
    """A backbone is called with windows (B, history, C, *grid) and the conditions of their samples."""
    model, batch = _Model(), _batch(case)
    _total(case, model, batch)
    require(bool(model.calls), "the backbone is never called")
    for window, conditions in model.calls:
        right = isinstance(window, Tensor) and window.shape[1:] == batch.inputs.shape[1:]
        shape = tuple(window.shape) if isinstance(window, Tensor) else type(window).__name__
        require(right, f"it is called with {shape}, expected (B, {', '.join(map(str, batch.inputs.shape[1:]))})")
        told = isinstance(conditions, Conditions)
        require(told, f"it is told {type(conditions).__name__}, expected the batch's Conditions")
        fits = len(cast("Conditions", conditions).dataset) == len(cast("Tensor", window))
        require(fits, "it is told the conditions of another number of samples than it is given")


def it_rolls_out_as_many_frames_as_set(case: Case) -> None:
    """Four frames, one or two at a time, give finite losses, unless `build` raises ConfigError."""
    refused = []
    for horizon in (1, 2):
        longer = case.with_settings(frames=4)
        batch, model = _batch(longer), _Model(horizon)
        try:
            losses = _losses(longer, model, batch)
        except ConfigError as error:
            refused.append(str(error))
            continue
        wrong = [name for name, value in losses.items() if not bool(value.isfinite().all())]
        require(not wrong, f"'{', '.join(wrong)}' is not finite for 4 frames, {horizon} at a time")
    if len(refused) == 2:
        raise NotApplicableError("; ".join(refused))


PROMISES: tuple[Promise, ...] = (
    losses_are_named_finite_scalars,
    gradients_reach_the_backbone,
    it_is_decided_by_seeds,
    it_does_not_depend_on_how_a_batch_is_split,
    what_is_masked_does_not_count,
    a_sample_may_have_nothing_that_counts,
    a_perfect_prediction_has_a_finite_gradient,
    the_batch_stays_as_it_is,
    the_backbone_is_called_as_it_is_trained,
    it_rolls_out_as_many_frames_as_set,
)
