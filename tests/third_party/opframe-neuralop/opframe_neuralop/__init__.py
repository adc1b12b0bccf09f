"""The FNO of the neuraloperator library, for opframe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, final

from attrs import field, frozen
from attrs.validators import gt

from opframe_registry import Backbone, Component, ConfigError, Fields, hookimpl

if TYPE_CHECKING:
    from torch import nn


@final
@frozen(kw_only=True)
class NeuralopFNO(Backbone):
    """FNO of the neuraloperator library (Kossaifi et al., 2024), told of parameters, time step and valid points.

    Each of them is one more channel of the input. Numbers come as asinh(value / smallest), which is a logarithm of
    either sign; one that is not known is a number that is learnt.
    """

    name: ClassVar[str] = "neuralop_fno"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "lifting": ("network.lifting.*",),
        "blocks": ("network.fno_blocks.*",),
        "head": ("network.projection.*",),
        "conditions": ("unknown",),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mini": {"width": 16, "depth": 4, "modes": 12},
        "small": {"width": 64, "depth": 4, "modes": 32},
    }
    width: int = field(default=32, validator=gt(0), metadata={"help": "channels of a point"})
    depth: int = field(default=4, validator=gt(0), metadata={"help": "Fourier layers"})
    modes: int = field(default=16, validator=gt(1), metadata={"help": "Fourier modes kept along each axis, both signs"})
    smallest: float = field(
        default=1e-6,
        validator=gt(0.0),
        metadata={"help": "below it, numbers of the equation are told on a linear scale"},
    )

    def check_grid(self, grid: Sequence[int]) -> None:
        """Raises ConfigError where a grid has no room for the modes."""
        if min(grid) < self.modes:
            points = "x".join(map(str, grid))
            raise ConfigError(f"[backbone] modes = {self.modes} are too many for the grid {points}; use {min(grid)}")

    def build(self, fields: Fields) -> nn.Module:
        """Make the network. Raises ConfigError for `normalize`, and for a grid with fewer points than modes."""
        if self.normalize:
            raise ConfigError(f"[backbone] {self.name} has no option to normalise samples; remove 'normalize'")
        self.check_grid(fields.grid)
        from opframe_neuralop.network import ConditionedFNO

        return ConditionedFNO(self, fields)


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    return [NeuralopFNO]
