"""Forecasts of any length from a network that predicts a few frames."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from opframe.config import building
from opframe_registry import Conditions

Forecast = Callable[[Tensor, int, Conditions], Tensor]
"""Maps a history (B, T_in, C, *grid), a number of frames and the conditions to (B, frames, C, *grid)."""


def model_forecast(backbone: nn.Module, horizon: int, missing: bool = False) -> Forecast:
    """A backbone's auto-regressive roll-out: what it predicts is appended to what it sees next.

    Where values may be `missing`, what is predicted at points that are not valid is 0, as a model is given it. The
    forecast raises WrongPredictionError where the backbone returns no Prediction of `horizon` frames.
    """

    def forecast(history: Tensor, frames: int, conditions: Conditions) -> Tensor:
        window, predicted = history, []
        shape = (len(history), horizon, *history.shape[2:])
        for first in range(0, frames, horizon):
            prediction = building.check_prediction(backbone, backbone(window, conditions), shape)
            field = prediction.field.to(history.dtype)
            if missing:
                field = field.where(conditions.valid[:, None], 0.0)
            predicted.append(field)
            if first + horizon < frames:
                window = torch.cat([window, field], 1)[:, horizon:]
        return (torch.cat(predicted, 1) if len(predicted) > 1 else predicted[0])[:, :frames]

    return forecast
