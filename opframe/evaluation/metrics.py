"""Relative L2 errors of roll-outs, as the DPOT protocol measures them."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from opframe_registry import Conditions

_TINY = 1e-8


@frozen(kw_only=True)
class Errors:
    """Errors of a batch of roll-outs: `full` (B,) over space and time together, `frames` (B, T) frame by frame.

    `senseless` (B, T, C) marks the frames whose truth is zero everywhere or too large to be squared: an error relative
    to it says nothing, and is in the means all the same.
    """

    full: Tensor
    frames: Tensor
    senseless: Tensor


def relative_errors(prediction: Tensor, target: Tensor, mask: Tensor) -> Errors:
    """‖prediction − target‖ / ‖target‖ per channel under the mask, averaged over the channels it keeps.

    `prediction` and `target` are (B, T, C, *grid), `mask` (C, *grid) of zeros and ones.
    """
    space = tuple(range(3, target.ndim))
    difference = ((prediction - target) * mask).square().sum(space)
    size = (target * mask).square().sum(space)
    counted = mask.flatten(1).any(1)
    frames = difference.sqrt() / (size.sqrt() + _TINY)
    full = difference.sum(1).sqrt() / (size.sum(1).sqrt() + _TINY)
    senseless = ((size.sqrt() <= _TINY) | ~size.isfinite()) & counted
    return Errors(full=full[:, counted].mean(-1), frames=frames[:, :, counted].mean(-1), senseless=senseless)


def persistence(history: Tensor, frames: int, conditions: Conditions | None = None) -> Tensor:
    """The last frame, repeated: (B, T_in, C, *grid) to (B, frames, C, *grid)."""
    return history[:, -1:].expand(-1, frames, *history.shape[2:])


def linear_extrapolation(history: Tensor, frames: int, conditions: Conditions | None = None) -> Tensor:
    """The line through the last two frames (the last frame, if there is one only)."""
    if history.shape[1] == 1:
        return persistence(history, frames)
    ahead = torch.arange(1, frames + 1, device=history.device, dtype=history.dtype)
    slope = history[:, -1:] - history[:, -2:-1]
    return history[:, -1:] + ahead.view(1, -1, *[1] * (history.ndim - 2)) * slope
