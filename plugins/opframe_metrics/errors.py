"""Errors of roll-outs: (B, T, C, *grid) of prediction and truth, under a mask, to values of every trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from opframe_registry import Metadata

_TINY = 1e-8
_VARIANCE = 1e-7  # added to a variance, as The Well does


def relative_l2(prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> Mapping[str, Tensor]:
    """‖prediction − truth‖ / ‖truth‖ per channel, as the DPOT protocol measures it: (B, T) by frame, (B,) of all."""
    of = Points(prediction, truth, mask)
    difference, size = (values.square().sum(of.space) for values in (of.error, of.truth))
    frames = difference.sqrt() / (size.sqrt() + _TINY)
    rollout = difference.sum(1).sqrt() / (size.sum(1).sqrt() + _TINY)
    return {
        "relative_l2": over_channels(frames, of.there),
        "relative_l2_rollout": over_channels(rollout, of.there.any(1)),
    }


def rmse(prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> Mapping[str, Tensor]:
    """The root of the mean square of the error, per channel, over the points that count: (B, T)."""
    of = Points(prediction, truth, mask)
    return {"rmse": over_channels(of.mean_square(of.error).sqrt(), of.there)}


def nrmse(prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> Mapping[str, Tensor]:
    """The root mean square of the error over that of the truth, per channel: (B, T)."""
    of = Points(prediction, truth, mask)
    return {"nrmse": over_channels((of.mean_square(of.error) / (of.mean_square(of.truth) + _TINY**2)).sqrt(), of.there)}


def vrmse(prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> Mapping[str, Tensor]:
    """The root of the mean square of the error over the variance of the truth in space, per channel: (B, T)."""
    of = Points(prediction, truth, mask)
    return {"vrmse": over_channels((of.mean_square(of.error) / (of.variance(of.truth) + _VARIANCE)).sqrt(), of.there)}


def max_error(prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> Mapping[str, Tensor]:
    """The largest absolute error at any point, per channel: (B, T)."""
    of = Points(prediction, truth, mask)
    return {"max_error": over_channels(of.error.abs().flatten(3).amax(3), of.there)}


def boundary_error(prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> Mapping[str, Tensor]:
    """The root mean square of the error over the outermost points of the grid, per channel: (B, T)."""
    inner = torch.zeros(truth.shape[3:], dtype=torch.bool, device=truth.device)
    inner[tuple(slice(1, -1) for _ in truth.shape[3:])] = True
    of = Points(prediction, truth, torch.where(inner, 0, mask))
    return {"boundary_error": over_channels(of.mean_square(of.error).sqrt(), of.there)}


class Points:
    """Prediction and truth, (B, T, C, *grid), at the points that count, 0 elsewhere; sums over them are (B, T, C)."""

    def __init__(self, prediction: Tensor, truth: Tensor, mask: Tensor) -> None:
        self.space = tuple(range(3, truth.ndim))
        self.mask = (mask != 0).expand(*mask.shape[:2], *truth.shape[2:])
        self.points = self.mask.sum(self.space)
        self.there = self.points > 0
        self._given = prediction, truth

    @cached_property
    def prediction(self) -> Tensor:
        """The predicted values."""
        return _at(self.mask, self._given[0])

    @cached_property
    def truth(self) -> Tensor:
        """The true values."""
        return _at(self.mask, self._given[1])

    @cached_property
    def error(self) -> Tensor:
        """Their difference."""
        return _at(self.mask, self._given[0] - self._given[1])

    def mean(self, values: Tensor) -> Tensor:
        """Over the points that count."""
        return values.sum(self.space) / self.points.clamp(min=1)

    def mean_square(self, values: Tensor) -> Tensor:
        """Of the values themselves."""
        return self.mean(values.square())

    def centred(self, values: Tensor) -> Tensor:
        """Less their mean, at the points that count."""
        return _at(self.mask, values - self.mean(values)[(..., *[None] * len(self.space))])

    def variance(self, values: Tensor) -> Tensor:
        """The mean square of what they differ from their mean."""
        return self.mean_square(self.centred(values))


def _at(mask: Tensor, values: Tensor) -> Tensor:
    """The values where they count, and 0 elsewhere, whatever stands there."""
    return torch.where(mask, values, 0.0)


def over_channels(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of (..., C) over the channels that count, which may differ; NaN where none does."""
    if counted.numel() == counted.shape[-1]:  # the same for all
        return values[..., counted.flatten()].mean(-1)
    return torch.where(counted, values, 0.0).sum(-1) / counted.sum(-1)
