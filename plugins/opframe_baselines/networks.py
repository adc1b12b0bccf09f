"""Forecasts without weights: (B, T, C, *grid) to a Prediction of (B, horizon, C, *grid)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from opframe_registry import Conditions, Prediction


class LastFrame(nn.Module):
    """The last frame, repeated."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    def forward(self, u: Tensor, conditions: Conditions | None = None) -> Prediction:
        return Prediction(field=u[:, -1:].expand(-1, self.horizon, *u.shape[2:]))


class Line(nn.Module):
    """The line through the last two frames."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    def forward(self, u: Tensor, conditions: Conditions | None = None) -> Prediction:
        ahead = torch.arange(1, self.horizon + 1, device=u.device, dtype=u.dtype)
        slope = u[:, -1:] - u[:, -2:-1]
        return Prediction(field=u[:, -1:] + ahead.view(1, -1, *[1] * (u.ndim - 2)) * slope)
