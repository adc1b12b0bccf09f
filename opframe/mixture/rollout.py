"""Forecasts of any length from a network that predicts a few frames."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from opframe_registry import Conditions

Forecast = Callable[[Tensor, int, Conditions], Tensor]
"""Maps a history (B, T_in, C, *grid), a number of frames and the conditions to (B, frames, C, *grid)."""


def model_forecast(backbone: nn.Module, horizon: int) -> Forecast:
    """A backbone's auto-regressive roll-out: what it predicts is appended to what it sees next."""

    def forecast(history: Tensor, frames: int, conditions: Conditions) -> Tensor:
        window, predicted = history, []
        for _ in range(0, frames, horizon):
            field = backbone(window, conditions).field.to(history.dtype)
            predicted.append(field)
            window = torch.cat([window, field], 1)[:, field.shape[1] :]
        return torch.cat(predicted, 1)[:, :frames]

    return forecast
