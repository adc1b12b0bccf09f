"""The convolutions in which frames and channels are stacked, made to fit other frames and channels.

Channels keep their positions, as the channel axis is made of slots; a channel that is new keeps its fresh weights.
"""

from __future__ import annotations

from torch import Tensor

from opframe_registry import Adapted, Fields

FIRST, LAST = "encoder.0.conv_0.conv.weight", ("head.weight", "head.bias")
"""Their names in the state dict."""


def adapt_first(weight: Tensor, fresh: Tensor, source: Fields, target: Fields) -> Adapted | None:
    """The first convolution, (width, history·C, *kernel). Frames are matched from the latest backwards.

    Frames before the trained history begin without weight, so that the prediction is the same. Frames that are no
    longer given are taken to equal the earliest that is, which gets their weights, too.
    """
    if weight.shape[0] != fresh.shape[0] or weight.shape[2:] != fresh.shape[2:]:
        return None
    old, new = _apart(weight, 1, source.history), _apart(fresh, 1, target.history).clone()
    kept, channels = min(source.history, target.history), min(old.shape[2], new.shape[2])
    new[:, :, :channels] = 0
    new[:, -kept:, :channels] = old[:, -kept:, :channels]
    new[:, -kept, :channels] += old[:, :-kept, :channels].sum(1)
    return Adapted(weight=new.flatten(1, 2), how=_words(source, target, "history", source.history, target.history))


def adapt_last(weight: Tensor, fresh: Tensor, source: Fields, target: Fields) -> Adapted | None:
    """The last convolution, weight (horizon·C, width, *1) or bias. Frames beyond the trained ones begin as the last."""
    if weight.shape[1:] != fresh.shape[1:]:
        return None
    old, new = _apart(weight, 0, source.horizon), _apart(fresh, 0, target.horizon).clone()
    kept, channels = min(source.horizon, target.horizon), min(old.shape[1], new.shape[1])
    new[:, :channels] = old[-1, :channels]
    new[:kept, :channels] = old[:kept, :channels]
    return Adapted(weight=new.flatten(0, 1), how=_words(source, target, "horizon", source.horizon, target.horizon))


def _apart(stacked: Tensor, axis: int, frames: int) -> Tensor:
    """The axis of frames·C as two, frames and C."""
    shape = stacked.shape
    return stacked.reshape(*shape[:axis], frames, -1, *shape[axis + 1 :])


def _words(source: Fields, target: Fields, name: str, old: int, new: int) -> str:
    """As `2 to 3 channels, history of 10 to 4 frames`; nothing where nothing differs."""
    channels = f"{len(source.channels)} to {len(target.channels)} channels"
    words = [channels] if len(source.channels) != len(target.channels) else []
    return ", ".join([*words, f"{name} of {old} to {new} frames"] if old != new else words)
