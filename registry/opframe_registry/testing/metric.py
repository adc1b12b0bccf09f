"""What a metric promises."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import cast

import attrs
import torch
from torch import Tensor

from opframe_registry.components import Metric
from opframe_registry.errors import ConfigError
from opframe_registry.metadata import Metadata
from opframe_registry.testing.promise import Case, NotApplicableError, Promise, require
from opframe_registry.values import Fields

FIELDS = Fields(channels=("u", "v", "padding"), grid=(12, 10), history=3)
METADATA = Metadata(
    trajectories=4,
    frames=8,
    grid=FIELDS.grid,
    channels=("u", "v"),
    predicted=("u", "v"),
    boundary="periodic",
    time_step=0.1,
    spacing=(0.5, 0.5),
    conserved={"mass": ("u",), "momentum": ("u", "v")},
)


def _frames(seed: int = 0, samples: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    phase = torch.linspace(0, 6, 10)
    wave = torch.sin(phase + torch.arange(samples).view(-1, 1, 1, 1, 1)) + torch.arange(5).view(-1, 1, 1, 1) / 5
    noise = torch.randn(samples, 5, 3, *FIELDS.grid, generator=generator)
    frames: Tensor = 1.5 + wave + 0.3 * noise
    return frames


def _mask() -> Tensor:
    """Both channels of the dataset count, what pads them does not."""
    mask = torch.ones(1, 1, 3, *FIELDS.grid)
    mask[:, :, 2] = 0
    return mask


def _measured(case: Case, prediction: Tensor, truth: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
    return cast("Metric", case.component).build(FIELDS)(prediction, truth, mask, METADATA)


def _same(one: Mapping[str, Tensor], two: Mapping[str, Tensor], near: float = 1e-5) -> bool:
    return one.keys() == two.keys() and all(
        torch.allclose(one[name], two[name], rtol=near, atol=1e-7, equal_nan=True) for name in one
    )


def values_are_of_trajectories_or_frames(case: Case) -> None:
    """It returns a mapping from names to tensors (B,), or (B, T) with one value for each frame."""
    found = _measured(case, _frames(1), _frames(0), _mask())
    require(isinstance(found, Mapping) and len(found) > 0, f"it returns {type(found).__name__}, expected a mapping")
    for name, value in found.items():
        shape = tuple(value.shape) if isinstance(value, Tensor) else None
        require(shape in ((3,), (3, 5)), f"'{name}' has the shape {shape}, expected (3,) or (3, 5)")
        require(not value.isnan().any(), f"'{name}' is NaN where there is something to measure")


def a_trajectory_does_not_depend_on_the_others(case: Case) -> None:
    """What is measured of a trajectory is the same in any batch, so that any number of processes find the same."""
    prediction, truth = _frames(1), _frames(0)
    together = _measured(case, prediction, truth, _mask())
    for index in range(3):
        part = slice(index, index + 1)
        alone = _measured(case, prediction[part], truth[part], _mask())
        same = _same({name: value[part] for name, value in together.items()}, alone)
        require(same, f"trajectory {index} alone has other values than in a batch")


def a_perfect_prediction_is_best(case: Case) -> None:
    """The truth itself has the best value: 0 where lower is better, and none that any other prediction surpasses."""
    metric = cast("Metric", case.component)
    perfect, other = (_measured(case, _frames(seed), _frames(0), _mask()) for seed in (0, 1))
    for name, value in perfect.items():
        if metric.better == "lower":
            zero = bool((value.abs() <= 1e-4).all())
            require(zero, f"'{name}' of the truth itself is {value.flatten()[0]:.3g}, expected 0")
            worse = bool((other[name] >= value - 1e-6).all())
        else:
            worse = bool((other[name] <= value + 1e-6).all())
        require(worse, f"'{name}' of another prediction is better than that of the truth itself")


def what_is_masked_does_not_count(case: Case) -> None:
    """Where the mask is zero, prediction and truth may hold anything, NaN too."""
    mask = _mask().expand(3, 5, 3, *FIELDS.grid).clone()
    mask[..., :3] = 0
    prediction, truth = _frames(1), _frames(0)
    expected = _measured(case, prediction, truth, mask)
    for value in (1e6, torch.nan):
        found = _measured(case, prediction.where(mask > 0, value), truth.where(mask > 0, value), mask)
        require(_same(expected, found), f"{value} at points that are masked changes what is measured")


def frames_that_are_masked_whole_are_left_out(case: Case) -> None:
    """Frames that are masked whole, as those beyond the end of a shorter trajectory, count neither for good nor bad."""
    mask = _mask().expand(3, 5, 3, *FIELDS.grid).clone()
    mask[1, 3:] = 0
    prediction, truth = _frames(1), _frames(0)
    prediction[1, 3:] = 1e6
    found = _measured(case, prediction, truth, mask)
    shorter = _measured(case, prediction[1:2, :3], truth[1:2, :3], _mask())
    for name, value in found.items():
        if value.ndim == 1:
            same = torch.allclose(value[1:2], shorter[name], rtol=1e-4, atol=1e-6, equal_nan=True)
            require(same, f"'{name}' of a trajectory changes with frames beyond its end")
        else:
            require(bool(value[1, 3:].isnan().all()), f"'{name}' of frames that are masked whole is no NaN")


def it_is_a_pure_function(case: Case) -> None:
    """The same arguments have the same values, and stay as they are."""
    given = (_frames(1), _frames(0), _mask())
    kept = [each.clone() for each in given]
    first, second = _measured(case, *given), _measured(case, *given)
    require(_same(first, second, near=0.0), "it measures something else the second time")
    require(all(map(torch.equal, given, kept)), "it changes what it is given")


def grids_have_any_number_of_axes(case: Case) -> None:
    """Frames with one or three axes of space are measured too, unless `build` raises ConfigError for their fields."""
    refused = []
    for grid in ((24,), (6, 5, 4)):
        fields = attrs.evolve(FIELDS, grid=grid)
        own = attrs.evolve(METADATA, grid=grid, boundary="periodic", spacing=(0.5,) * len(grid))
        shape = (3, 5, 3, *grid)
        prediction, truth = (_frames(seed).flatten(3)[..., : prod(grid)].reshape(shape) for seed in (1, 0))
        mask = torch.ones(1, 1, 3, *grid)
        mask[:, :, 2] = 0
        try:
            measure = cast("Metric", case.component).build(fields)
        except ConfigError as error:
            refused.append(str(error))
            continue
        for name, value in measure(prediction, truth, mask, own).items():
            right = tuple(value.shape) in ((3,), (3, 5)) and not value.isnan().any()
            require(
                right, f"on a grid of {len(grid)} axes '{name}' is {tuple(value.shape)}, with NaN or of no such shape"
            )
    if len(refused) == 2:
        raise NotApplicableError(f"it refuses them: {refused[0]}")


def a_trajectory_may_have_nothing_to_measure(case: Case) -> None:
    """A trajectory whose mask is zero everywhere is NaN, which no mean counts; those beside it stay as they are."""
    mask = _mask().expand(3, 5, 3, *FIELDS.grid).clone()
    prediction, truth = _frames(1), _frames(0)
    whole = _measured(case, prediction, truth, mask)
    mask[1] = 0
    found = _measured(case, prediction, truth, mask)
    for name, value in found.items():
        require(bool(value[1].isnan().all()), f"'{name}' of a trajectory in which nothing counts is {value[1]}")
    require(_same(_beside(whole), _beside(found)), "other trajectories change with one in which nothing counts")


def _beside(found: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The values of the trajectories beside the second one."""
    return {name: value[[0, 2]] for name, value in found.items()}


def a_prediction_that_is_not_finite_spoils_no_other(case: Case) -> None:
    """A trajectory whose prediction has become infinite or NaN raises nothing, and leaves the others as they are."""
    prediction, truth = _frames(1), _frames(0)
    expected = _measured(case, prediction, truth, _mask())
    for wrong in (torch.inf, torch.nan):
        prediction[1, 2:] = wrong
        found = _measured(case, prediction, truth, _mask())
        require(
            _same(_beside(expected), _beside(found)),
            f"other trajectories change with one that is predicted to be {wrong}",
        )


PROMISES: tuple[Promise, ...] = (
    values_are_of_trajectories_or_frames,
    a_trajectory_does_not_depend_on_the_others,
    a_perfect_prediction_is_best,
    what_is_masked_does_not_count,
    frames_that_are_masked_whole_are_left_out,
    it_is_a_pure_function,
    grids_have_any_number_of_axes,
    a_trajectory_may_have_nothing_to_measure,
    a_prediction_that_is_not_finite_spoils_no_other,
)
