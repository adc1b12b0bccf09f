"""What adapting a trained weight means for any backbone whose channels are slots, and the words that tell of it.

Channels keep their positions. Where a fresh tensor has more than the trained one, the rest keeps its fresh values.

Legend: T frames in, S frames out, C channels, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from opframe_registry import Adapted, Change


def laid_over(fresh: Tensor, weight: Tensor) -> Tensor:
    """The fresh tensor, with what both have by position from the trained one."""
    corner = tuple(slice(min(sizes)) for sizes in zip(weight.shape, fresh.shape, strict=True))
    result = fresh.clone()
    result[corner] = weight[corner]
    return result


def moments_layer(change: Change) -> Adapted | None:
    """(D, 2C): means of the channels, then their standard deviations."""
    if len(change.weight) != len(change.fresh):
        return None
    weight, fresh = (torch.unflatten(tensor, 1, (2, -1)) for tensor in (change.weight, change.fresh))
    return Adapted(weight=laid_over(fresh, weight).flatten(1), how=channels_changed(change))


def last_layer(change: Change) -> Adapted | None:
    """(S·C, …), the layer that makes frames. Frames beyond the trained horizon begin as its last."""
    weight = torch.unflatten(change.weight, 0, (change.source.horizon, -1))
    fresh = torch.unflatten(change.fresh, 0, (change.target.horizon, -1))
    if weight.shape[2:] != fresh.shape[2:]:
        return None
    frames = weight[torch.arange(len(fresh), device=weight.device).clamp(max=len(weight) - 1)]
    horizon = changed("horizon of", len(weight), len(fresh), "frames")
    return Adapted(weight=laid_over(fresh, frames).flatten(0, 1), how=words(channels_changed(change), horizon))


def channels_changed(change: Change) -> str:
    """As `2 to 3 channels`; nothing where nothing differs."""
    return changed("", len(change.source.channels), len(change.target.channels), "channels")


def history_changed(change: Change) -> str:
    """As `history of 10 to 4 frames`; nothing where nothing differs."""
    return changed("history of", change.source.history, change.target.history, "frames")


def inputs_changed(change: Change) -> str:
    """Both, as `2 to 3 channels, history of 10 to 4 frames`."""
    return words(channels_changed(change), history_changed(change))


def changed(before: str, old: int, new: int, after: str) -> str:
    """As `horizon of 1 to 4 frames`; nothing where nothing differs."""
    return "" if old == new else f"{before} {old} to {new} {after}".strip()


def words(*reasons: str) -> str:
    """Those reasons that there are."""
    return ", ".join(filter(None, reasons))
