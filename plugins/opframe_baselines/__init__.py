"""What a forecast is to be better than: backbones without weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, final

from attrs import frozen

from opframe_registry import Backbone, Component, Fields, hookimpl

if TYPE_CHECKING:
    from torch import nn


@final
@frozen(kw_only=True)
class Persistence(Backbone):
    """Repeats the last known frame.

    It has no weights, and is named in `evaluation.baselines`. `normalize` changes nothing, as what is repeated does not
    depend on units.
    """

    name: ClassVar[str] = "persistence"

    def build(self, fields: Fields) -> nn.Module:
        """A module without parameters."""
        from opframe_baselines.networks import LastFrame

        return LastFrame(fields.horizon)


@final
@frozen(kw_only=True)
class Linear(Backbone):
    """Continues the line through the last two frames.

    Of one frame alone it is persistence. It has no weights, and is named in `evaluation.baselines`. `normalize` changes
    nothing, as a line stays a line in other units.
    """

    name: ClassVar[str] = "linear"

    def build(self, fields: Fields) -> nn.Module:
        """A module without parameters."""
        from opframe_baselines.networks import LastFrame, Line

        return LastFrame(fields.horizon) if fields.history == 1 else Line(fields.horizon)


@hookimpl
def opframe_components() -> list[type[Component]]:
    """The components of this plugin."""
    return [Persistence, Linear]
