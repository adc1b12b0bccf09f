"""The kind of component that is a network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import Attribute, field, frozen

from opframe_registry.component import Component
from opframe_registry.values import Adapted, Change, Fields

if TYPE_CHECKING:
    from torch import Tensor, nn


@frozen(kw_only=True, eq=False)
class Published:
    """What a backbone makes of a checkpoint file of its authors.

    `weights` are named and shaped as those of the network that `backbone.build(fields)` makes, `mapped` says
    for each tensor of the file what became of it, and `assumed` what the file does not say and was taken for granted.
    """

    backbone: Backbone
    fields: Fields
    weights: Mapping[str, Tensor]
    mapped: Mapping[str, str]
    assumed: Mapping[str, str] = field(factory=dict)


def _is_preset(component: Component, _: Attribute[str | None], size: str | None) -> None:
    if size is not None and size not in component.presets:
        raise ValueError(f"size = {size!r} is not a preset; presets: {', '.join(component.presets) or 'none'}")


@frozen(kw_only=True)
class Backbone(Component):
    """A network that maps (B, T, C, *grid) to a Prediction.

    `build` obeys `normalize`, or raises ConfigError where the network has no such option. The network may be given
    other grids than the one it is built for, and raises ConfigError for those it does not take.

    Modules of the network that have a method `numbers`, of names to scalar tensors, are asked for them whenever loggers
    get numbers.
    """

    kind: ClassVar[str] = "backbone"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Parts of the network by name, as glob patterns of the names in its state dict. Together they are the whole."""
    size: str | None = field(
        default=None,
        validator=_is_preset,
        metadata={"help": "preset that fills the other keys; all of them override"},
    )
    normalize: bool = field(default=False, metadata={"help": "normalise every sample and restore its scale at the end"})

    @abstractmethod
    def build(self, fields: Fields) -> nn.Module:
        """Make the network with fresh weights. Raises ConfigError where the fields do not fit it."""

    def idle(self) -> int:
        """Parameters that take no part in the prediction of one sample, such as experts that are not chosen."""
        return 0

    def adapt(self, change: Change) -> Adapted | None:
        """Make a weight of a trained network fit this one. None: it cannot be used.

        Without more knowledge, a weight of the same shape is taken as it is, and one that differs only in axes of
        length 1 at the end, as 1x1 convolutions in two and in three dimensions do, is reshaped.
        """
        weight, fresh = change.weight, change.fresh
        if weight.shape == fresh.shape:
            return Adapted(weight=weight)
        common = min(weight.ndim, fresh.ndim)
        rest = {*weight.shape[common:], *fresh.shape[common:]}
        if weight.shape[:common] == fresh.shape[:common] and rest == {1}:
            return Adapted(weight=weight.reshape(fresh.shape), how=f"{weight.ndim} axes to {fresh.ndim}")
        return None

    @classmethod
    def from_published(cls, arguments: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Published | None:
        """Read a checkpoint of this architecture's authors: its constructor arguments and its state dict.

        None: the file is not of this architecture. The shapes decide where the arguments are silent.
        """
        return None
