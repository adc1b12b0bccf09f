"""What several backbones ask of their keys, of the data and of published files. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from opframe_registry import ConfigError, Fields

if TYPE_CHECKING:
    from torch import Tensor


def check_groups(width: int, groups: int, otherwise: str = "") -> None:
    """Raise ValueError where GroupNorm cannot divide `width` channels; `otherwise` is what else could be done."""
    if width % groups:
        nearest = groups * max(1, round(width / groups))
        raise ValueError(f"width = {width} must be a multiple of {groups} (GroupNorm), such as {nearest}{otherwise}")


def check_classes(classes: int, fields: Fields) -> None:
    """Raise ConfigError where a classification head has fewer classes than there are datasets; 0: there is no head."""
    if 0 < classes < len(fields.datasets):
        raise ConfigError(
            f"[backbone] classes = {classes}, but the mixture has {len(fields.datasets)} datasets; "
            f"set classes to {len(fields.datasets)} or more, or to 0 for a network that does not classify"
        )


def in_words(grid: Iterable[int]) -> str:
    """As `64×64`."""
    return "×".join(map(str, grid))


def shape_of(weights: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """The shape of a tensor of a published file. Raises ConfigError where the file does not have it."""
    if name not in weights:
        raise ConfigError(f"the tensor {name} is missing")
    return tuple(weights[name].shape)
