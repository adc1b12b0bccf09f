"""The convolution that sees the stacked frames and channels, made to fit other frames and channels.

Channels keep their positions, as the channel axis is made of slots; a channel that is new keeps its fresh weights.
"""

from __future__ import annotations

import torch

from opframe.layers.changes import inputs_changed
from opframe_registry import Adapted, Change

FIRST, LAST = "encoder.0.conv_0.conv.weight", ("head.weight", "head.bias")
"""Names in the state dict: of this one, and of the layer that makes frames."""


def adapt_first(change: Change) -> Adapted | None:
    """The first convolution, (width, history·C, *kernel). Frames are matched from the latest backwards.

    Frames before the trained history begin without weight, so that the prediction is the same. Frames that are no
    longer given are taken to equal the earliest that is, which gets their weights, too.
    """
    weight, fresh = change.weight, change.fresh
    if weight.shape[0] != fresh.shape[0] or weight.shape[2:] != fresh.shape[2:]:
        return None
    old = torch.unflatten(weight, 1, (change.source.history, -1))
    new = torch.unflatten(fresh, 1, (change.target.history, -1)).clone()
    kept, channels = min(change.source.history, change.target.history), min(old.shape[2], new.shape[2])
    new[:, :, :channels] = 0
    new[:, -kept:, :channels] = old[:, -kept:, :channels]
    new[:, -kept, :channels] += old[:, :-kept, :channels].sum(1)
    return Adapted(weight=new.flatten(1, 2), how=inputs_changed(change))
