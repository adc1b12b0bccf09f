"""Errors of roll-outs: (B, T, C, *grid) of prediction and truth, under a mask, to values of every trajectory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from opframe_registry import Metadata

_TINY = 1e-8


def relative_l2(prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> Mapping[str, Tensor]:
    """‖prediction − truth‖ / ‖truth‖ per channel, as the DPOT protocol measures it: (B, T) by frame, (B,) of all."""
    space, mask = tuple(range(3, truth.ndim)), mask.expand(*mask.shape[:2], *truth.shape[2:])
    difference = _at(mask, prediction - truth).square().sum(space)
    size = _at(mask, truth).square().sum(space)
    counted = mask.flatten(3).any(3)
    frames = difference.sqrt() / (size.sqrt() + _TINY)
    rollout = difference.sum(1).sqrt() / (size.sum(1).sqrt() + _TINY)
    return {
        "relative_l2": over_channels(frames, counted),
        "relative_l2_rollout": over_channels(rollout, counted.any(1)),
    }


def rmse(prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> Mapping[str, Tensor]:
    """The root of the mean square of the error, per channel, over the points that count: (B, T)."""
    space, mask = tuple(range(3, truth.ndim)), mask.expand(*mask.shape[:2], *truth.shape[2:])
    squares = _at(mask, prediction - truth).square().sum(space)
    points = mask.sum(space)
    return {"rmse": over_channels((squares / points.clamp(min=1)).sqrt(), points > 0)}


def _at(mask: Tensor, values: Tensor) -> Tensor:
    """The values where they count, and 0 elsewhere, whatever stands there."""
    return torch.where(mask != 0, values, 0.0)


def over_channels(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of (..., C) over the channels that count, which may differ; NaN where none does."""
    if counted.numel() == counted.shape[-1]:  # the same for all
        return values[..., counted.flatten()].mean(-1)
    return torch.where(counted, values, 0.0).sum(-1) / counted.sum(-1)
