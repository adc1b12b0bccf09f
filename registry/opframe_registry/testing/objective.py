"""What an objective promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import attrs
import torch
from torch import Tensor, nn

from opframe_registry.components import Objective
from opframe_registry.testing.backbone import conditions_of
from opframe_registry.testing.promise import Case, Promise, require
from opframe_registry.values import Batch, Conditions, Fields, Prediction

FIELDS = Fields(channels=("u", "v"), grid=(12, 10), history=3)


class _Model(nn.Module):
    """Predicts a weighted mean of what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.7, 0.2]))

    def forward(self, window: Tensor, conditions: Conditions) -> Prediction:
        field = self.weight[0] * window.mean(1, keepdim=True) + self.weight[1] * window[:, -1:]
        return Prediction(field=field)


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


def _losses(case: Case, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    return cast("Objective", case.component).build(FIELDS)(model, batch)


def _total(case: Case, model: nn.Module, batch: Batch) -> Tensor:
    return torch.stack(list(_losses(case, model, batch).values())).sum()


def _part(batch: Batch, chosen: slice) -> Batch:
    names = ("parameters", "time_step", "spacing", "boundary", "dataset")
    told = {name: getattr(batch.conditions, name)[chosen] for name in names}
    valid = batch.conditions.valid
    return attrs.evolve(
        batch,
        inputs=batch.inputs[chosen],
        targets=batch.targets[chosen],
        mask=batch.mask if len(batch.mask) == 1 else batch.mask[chosen],
        conditions=Conditions(valid=valid if len(valid) == 1 else valid[chosen], **told),
        seeds=batch.seeds[chosen],
    )


def losses_are_named_finite_scalars(case: Case) -> None:
    """A loss function returns a mapping from names to finite scalars."""
    losses = _losses(case, _Model(), _batch(case))
    require(isinstance(losses, Mapping) and len(losses) > 0, f"it returns {type(losses).__name__}, expected a mapping")
    for name, value in losses.items():
        right = isinstance(name, str) and isinstance(value, Tensor) and value.ndim == 0
        require(right, f"'{name}' is {value!r}, expected a scalar tensor")
        require(bool(value.isfinite()), f"'{name}' is {value.item()}")


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
    """The loss of a batch is the mean of those of its equal parts: processes and accumulation change nothing."""
    model, batch = _Model(), _batch(case)
    whole = _total(case, model, batch)
    parts = [_total(case, model, _part(batch, slice(first, first + 2))) for first in (0, 2, 4)]
    mean = torch.stack(parts).mean()
    apart = float(((whole - mean).abs() / whole.abs().clamp(min=1e-12)).detach())
    require(apart <= 1e-5, f"the mean over three parts is {mean.item():.6g}, the whole {whole.item():.6g}")


def what_is_masked_does_not_count(case: Case) -> None:
    """Where the mask is zero, targets change neither the loss nor its gradient, whatever they hold."""
    batch = _batch(case)
    mask = torch.ones_like(batch.targets)
    mask[..., :4] = 0
    valid = torch.ones(len(mask), 1, *FIELDS.grid, dtype=torch.bool)
    valid[..., :4] = False
    told = {name: getattr(batch.conditions, name) for name in vars(batch.conditions)}
    inputs = batch.inputs.where(valid[:, None], 0.0)
    masked = attrs.evolve(batch, inputs=inputs, mask=mask, conditions=Conditions(**{**told, "valid": valid}))
    other = attrs.evolve(masked, targets=batch.targets.where(mask > 0, 1e3))
    found = []
    for each in (masked, other):
        model = _Model()
        total = _total(case, model, each)
        torch.autograd.backward(total)
        gradient = model.weight.grad
        require(gradient is not None, "no gradient reaches the backbone")
        found.append((total.detach(), gradient))
    same = all(torch.allclose(one, two, rtol=1e-6) for one, two in zip(*found, strict=True))
    require(same, "targets that are masked change the loss or its gradient")
    require(bool(found[0][0].isfinite()), "the loss is not finite where something is masked")


PROMISES: tuple[Promise, ...] = (
    losses_are_named_finite_scalars,
    gradients_reach_the_backbone,
    it_is_decided_by_seeds,
    it_does_not_depend_on_how_a_batch_is_split,
    what_is_masked_does_not_count,
)
