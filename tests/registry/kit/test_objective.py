"""Objectives that are broken on purpose: each is caught by the name of the promise that it breaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import attrs
import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

from opframe_registry import Batch, ConfigError, Fields, Objective
from opframe_registry.testing import Case, NotApplicableError, broken_promises
from opframe_registry.testing.helper import Helper
from opframe_registry.testing.objective import it_rolls_out_as_many_frames_as_set

Loss = Callable[[nn.Module, Batch], Mapping[str, Tensor]]


def rolled_out(model: nn.Module, batch: Batch) -> Tensor:
    """As many frames as there are targets."""
    history = batch.inputs.shape[1]
    window = batch.inputs
    while window.shape[1] < history + batch.targets.shape[1]:
        window = torch.cat([window, model(window[:, -history:], batch.conditions).field], 1)
    return window[:, history:]


def squares(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Of the errors that count: their sum, and how many there are, of each sample."""
    mask = batch.mask.expand(batch.targets.shape)
    error = torch.where(mask > 0, rolled_out(model, batch) - batch.targets, 0.0)
    return error.square().flatten(1).sum(1), mask.flatten(1).sum(1)


def good(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """The mean square of the error, with noise that comes from the seeds."""
    generators = [torch.Generator().manual_seed(int(seed)) for seed in batch.seeds]
    noise = torch.stack([torch.randn(batch.inputs.shape[1:], generator=generator) for generator in generators])
    total, count = squares(model, attrs.evolve(batch, inputs=batch.inputs + 1e-3 * noise))
    return {"square": (total / count.clamp(min=1)).mean()}


def undefined(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """Divides by the number of points that count."""
    total, count = squares(model, batch)
    return {"square": (total / count).mean()}


def norm(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """The root of zero has no gradient."""
    total, count = squares(model, batch)
    return {"root": (total / count.clamp(min=1)).sqrt().mean()}


def noisy_in_place(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """Writes into the frames that it is given, to the same effect each time."""
    batch.inputs.mul_(2.0)
    return good(model, batch)


def silent(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """Tells the backbone nothing."""

    class Untold(nn.Module):
        def forward(self, window: Tensor, conditions: object) -> object:
            return model(window, None)

    return good(Untold(), batch)


def joined(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """Repeats samples without their conditions."""

    class Twice(nn.Module):
        def forward(self, window: Tensor, conditions: object) -> object:
            found = model(torch.cat([window, window]), conditions)
            found.field = found.field[: len(window)]
            return found

    return good(Twice(), batch)


def one_frame(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """Knows of one frame alone; of more, its loss is no number."""
    frames = batch.targets.shape[1]
    return {"square": good(model, batch)["square"] * (1.0 if frames == 1 else torch.inf)}


def drawn_together(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """Noise that comes from the first seed alone, and so depends on where a sample is in a batch."""
    noise = torch.randn(batch.inputs.shape, generator=torch.Generator().manual_seed(int(batch.seeds[0])))
    return good(model, attrs.evolve(batch, inputs=batch.inputs + noise))


@frozen(kw_only=True)
class Mean(Objective):
    """The mean square of the error."""

    name: ClassVar[str] = "mean"
    loss: ClassVar[Loss] = staticmethod(good)

    def build(self, fields: Fields) -> Loss:
        return self.loss


class Short(Mean):
    """Refuses to roll out."""

    def build(self, fields: Fields) -> Loss:
        if self.frames > 1:
            raise ConfigError("one frame alone")
        return self.loss


def test_a_good_one_breaks_no_promise(tmp_path: Path) -> None:
    assert broken_promises(Mean(), tmp_path) == {}


def test_one_that_refuses_frames_is_not_held_to_them(tmp_path: Path) -> None:
    assert it_rolls_out_as_many_frames_as_set.__name__ not in broken_promises(Short(), tmp_path)
    with pytest.raises(NotApplicableError, match="one frame alone"):
        it_rolls_out_as_many_frames_as_set(Case(component=Short(), folder=tmp_path, helper=Helper()))


@pytest.mark.parametrize(
    ("loss", "promise"),
    [
        (undefined, "a_sample_may_have_nothing_that_counts"),
        (norm, "a_perfect_prediction_has_a_finite_gradient"),
        (noisy_in_place, "the_batch_stays_as_it_is"),
        (silent, "the_backbone_is_called_as_it_is_trained"),
        (joined, "the_backbone_is_called_as_it_is_trained"),
        (one_frame, "it_rolls_out_as_many_frames_as_set"),
        (drawn_together, "it_does_not_depend_on_how_a_batch_is_split"),
    ],
)
def test_a_broken_one_is_caught_by_the_promise(
    loss: Loss, promise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mean, "loss", staticmethod(loss))
    assert promise in broken_promises(Mean(), tmp_path)
