"""The library's network, with conditions as further channels of its input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from neuralop.layers.spectral_convolution import SpectralConv  # type: ignore[import-untyped]
from neuralop.models import FNO  # type: ignore[import-untyped]
from torch import Tensor, nn

from opframe_registry import Conditions, Fields, Prediction

if TYPE_CHECKING:
    from opframe_neuralop import NeuralopFNO


class Convolution(SpectralConv):  # type: ignore[misc]
    """The library's spectral convolution, but with torch's own einsum, which torch.compile can trace."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._contract = _contract


def _contract(modes: Tensor, weight: Any, separable: bool = False) -> Tensor:
    return torch.einsum("bi...,io...->bo...", modes, weight if isinstance(weight, Tensor) else weight.to_tensor())


class PlainFNO(FNO):  # type: ignore[misc]
    """The library's network, whose state dict has tensors only; that of the library also has its constructor's call."""

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        return nn.Module.state_dict(self, *arguments, **options)


class ConditionedFNO(nn.Module):
    """Maps (B, T, C, *grid) to the next `horizon` frames."""

    def __init__(self, settings: NeuralopFNO, fields: Fields) -> None:
        super().__init__()
        self.settings = settings
        self.horizon, self.channels = fields.horizon, len(fields.channels)
        self.unknown = nn.Parameter(torch.zeros(len(fields.parameters) + 1))  # of each parameter, and the time step
        axes = len(fields.grid)
        self.network = PlainFNO(
            n_modes=(settings.modes,) * axes,
            in_channels=fields.history * self.channels + len(self.unknown) + 1 + axes,
            out_channels=self.horizon * self.channels,
            hidden_channels=settings.width,
            n_layers=settings.depth,
            positional_embedding=None,  # that of the library stays on the device where it was used first
            conv_module=Convolution,
        )

    def forward(self, window: Tensor, conditions: Conditions) -> Prediction:
        """Predict from a window (B, T, C, *grid). Raises ConfigError for a grid that is too small."""
        grid = window.shape[3:]
        self.settings.check_grid(grid)
        told = [window.flatten(1, 2), self._constants(conditions, grid), conditions.valid, _coordinates(window)]
        samples = torch.cat([item.float().expand(len(window), -1, *grid) for item in told], 1)
        with torch.autocast(window.device.type, enabled=False):  # a Fourier transform is none of bfloat16
            field = self.network(samples)
        return Prediction(field=field.unflatten(1, (self.horizon, self.channels)))

    def _constants(self, conditions: Conditions, grid: torch.Size) -> Tensor:
        """Parameters and time step as channels (B, P + 1, *grid) that do not change in space."""
        numbers = torch.cat([conditions.parameters, conditions.time_step[:, None]], 1)
        missing = numbers.isnan()
        scaled = torch.asinh(numbers.masked_fill(missing, 0.0) / self.settings.smallest)
        told = torch.where(missing, self.unknown, scaled)
        return told.view(*told.shape, *[1] * len(grid)).expand(-1, -1, *grid)


def _coordinates(window: Tensor) -> Tensor:
    """Where a point is along each axis, from 0 to 1, (1, axes, *grid)."""
    along = [torch.arange(points, device=window.device) / points for points in window.shape[3:]]
    return torch.stack(torch.meshgrid(*along, indexing="ij"))[None]
