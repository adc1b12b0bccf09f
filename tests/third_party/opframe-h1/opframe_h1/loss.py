"""The relative H¹ error along a roll-out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from opframe_registry import Batch, Boundary, Conditions, Prediction

if TYPE_CHECKING:
    from opframe_h1 import RelativeH1


def relative_h1(prediction: Tensor, truth: Tensor, mask: Tensor, conditions: Conditions, weight: float) -> Tensor:
    """The error of every sample: (B, T, C, *grid) -> (B,); a sample in which nothing counts has the error 0.

    `mask` broadcasts against the others and is zero where nothing counts, whatever the values there.
    """
    counts = (mask != 0).expand(truth.shape)
    error = torch.where(counts, prediction - truth, 0.0)
    truth = torch.where(counts, truth, 0.0)
    space_time = (1, *range(3, truth.ndim))
    errors, sizes = error.square().sum(space_time), truth.square().sum(space_time)  # (B, C)
    for axis, step, between in _neighbours(counts, conditions):
        slope = [(torch.roll(field, -1, axis) - field) * between / step for field in (error, truth)]
        errors = errors + weight * slope[0].square().sum(space_time)
        sizes = sizes + weight * slope[1].square().sum(space_time)
    there = counts.flatten(3).any(3).any(1)  # (B, C)
    nothing = errors == 0  # the root has no gradient there
    roots = torch.where(nothing, 0.0, torch.where(nothing, 1.0, errors).sqrt())
    ratios = torch.where(there, roots / (sizes.sqrt() + 1e-8), 0.0)
    return ratios.sum(1) / there.sum(1).clamp(min=1)


def _neighbours(counts: Tensor, conditions: Conditions) -> Iterator[tuple[int, Tensor, Tensor]]:
    """For each axis: its number, the distance of two points (B, 1, …), and between which points and the next one
    there is a difference: both count, and across the end of the axis only where it is periodic."""
    samples, grid = len(counts), counts.shape[3:]
    shape = (samples, *[1] * (counts.ndim - 1))
    known = conditions.spacing.isfinite().all(1, keepdim=True)
    lengths = torch.where(known, conditions.spacing, 1.0) * conditions.spacing.new_tensor(grid)
    steps = lengths / lengths.amax(1, keepdim=True) / conditions.spacing.new_tensor(grid)
    periodic = (conditions.boundary == Boundary.PERIODIC).all(2)
    for axis, points in enumerate(grid):
        last = torch.arange(points, device=counts.device) == points - 1
        last = last.view(-1, *[1] * (len(grid) - 1 - axis))
        connected = periodic[:, axis].view(shape) | ~last
        where = 3 + axis
        yield where, steps[:, axis].view(shape), counts & torch.roll(counts, -1, where) & connected


class SobolevLoss:
    """Adds the errors of the calls that it takes to predict all frames."""

    def __init__(self, settings: RelativeH1, horizon: int) -> None:
        self.settings, self.horizon = settings, horizon

    def __call__(self, backbone: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """The error, and the backbone's penalties with their weight."""
        window, mask = batch.inputs, batch.mask.expand(batch.targets.shape)
        valid = batch.conditions.valid[:, None]
        losses: dict[str, Tensor] = {}
        for start in range(0, self.settings.frames, self.horizon):
            prediction: Prediction = backbone(window, batch.conditions)
            step = slice(start, start + self.horizon)
            error = relative_h1(
                prediction.field, batch.targets[:, step], mask[:, step], batch.conditions, self.settings.gradient
            )
            weighted = {name: self.settings.penalty_weight * value for name, value in prediction.penalties.items()}
            for name, value in {self.settings.name: error.mean(), **weighted}.items():
                losses[name] = losses[name] + value if name in losses else value
            seen = torch.where(valid, prediction.field, 0.0)  # inputs are 0 where nothing is valid
            window = torch.cat([window, seen], 1)[:, -window.shape[1] :]
        return losses
