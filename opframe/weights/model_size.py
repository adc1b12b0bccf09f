"""How many parameters a backbone has, without making any."""

from __future__ import annotations

import attrs
from attrs import frozen
from rich.table import Table

from opframe.config.building import build_shapes
from opframe_registry import Backbone, Fields, OpframeError

EXAMPLE = Fields(channels=("u", "v", "p", "rho"), grid=(128, 128), history=10, horizon=1)
"""What parameters are counted for, as it depends on the fields: those of the published DPOT and MoE-POT."""


@frozen(kw_only=True)
class ModelSize:
    """Parameters in all, and those that take part in the prediction of one sample."""

    total: int
    activated: int


def model_size(backbone: Backbone, fields: Fields = EXAMPLE) -> ModelSize:
    """Count the parameters on torch's meta device, which takes no memory. Raises what `build` raises."""
    network = build_shapes(backbone, fields)
    total = sum(weight.numel() for weight in network.parameters())
    return ModelSize(total=total, activated=total - backbone.idle())


def variants(component: type[Backbone]) -> dict[str, Backbone]:
    """A backbone with its defaults and with each of its presets, as far as they are complete."""
    required = {attribute.name for attribute in attrs.fields(component) if attribute.default is attrs.NOTHING}
    settings = {size: {**keys, "size": size} for size, keys in component.presets.items()}
    return {name: component(**keys) for name, keys in {"defaults": {}, **settings}.items() if required <= {*keys}}


def in_words(fields: Fields) -> str:
    """As `10 frames of 4 channels on 128×128, 1 frame out`."""
    frames = f"{fields.history} frames of {len(fields.channels)} channels"
    return f"{frames} on {'×'.join(map(str, fields.grid))}, {fields.horizon} frame out"


def size_table(component: type[Backbone]) -> Table:
    """The parameters of the defaults and of every preset; what cannot be built has the reason instead."""
    table = Table("size")
    table.add_column("in all", justify="right")
    table.add_column("activated by a sample", justify="right")
    for name, backbone in variants(component).items():
        table.add_row(name, *_counts(backbone))
    return table


def _counts(backbone: Backbone) -> tuple[str, str]:
    try:
        size = model_size(backbone)
    except OpframeError as error:  # another kind of grid, or what the meta device cannot do
        return "not counted", str(error).split("\n")[0]
    return f"{size.total:,}", f"{size.activated:,}"
