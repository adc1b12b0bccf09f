"""Weights of a trained FNO into one for other channels, another history or horizon, other datasets or modes.

Channels are slots and keep their positions; frames that go in are matched from the latest backwards, frames that come
out from the first onwards, modes by their frequency. Where a fresh tensor has more than the trained one, the rest keeps
its fresh values, but modes that were not trained are zero: the trained convolution stays what it is.

Legend: T frames in, S frames out, C channels, N axes of space, D width, M = T·C + N inputs of a point and as many
channels inside the embedding, s choices of signs, K kept modes of an axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from opframe.layers.adaptation import laid_over
from opframe_registry import Adapted, Backbone, Fields


def adapt_fno(
    backbone: Backbone,
    name: str,
    weight: Tensor,
    fresh: Tensor,
    source: Fields,
    target: Fields,
    weights: Mapping[str, Tensor],
) -> Adapted | None:
    """What `Backbone.adapt` returns for an FNO."""
    if name.startswith("spectral_convs."):
        return _spectral(weight, fresh)
    if name == "patch_embed.proj.0.weight":
        return _first_layer(weight, fresh, source, target)
    if name == "patch_embed.proj.0.bias":
        return Adapted(weight=laid_over(fresh, weight), how=_inputs(source, target))
    if name == "patch_embed.proj.2.weight":
        return _second_layer(weight, fresh, source, target)
    if name.startswith("fc2."):
        return _last_layer(weight, fresh, source, target)
    if name == "scale_feats.weight":
        return _moments(weight, fresh, source, target)
    if name.startswith("cls_head.4."):
        return _classes(weight, fresh, source, target)
    return Backbone.adapt(backbone, name, weight, fresh, source, target, weights)


def _spectral(weight: Tensor, fresh: Tensor) -> Adapted | None:
    """(s, K_0, …, 2D, D): frequencies of axis a are −K … −1 if bit a of the first index is set, else 0 … K−1."""
    old, new = weight.shape[1:-2], fresh.shape[1:-2]
    if len(old) != len(new) or weight.shape[-2:] != fresh.shape[-2:]:
        return None
    if old == new:
        return Adapted(weight=weight)
    low = [min(sizes) for sizes in zip(old, new, strict=True)]
    result = torch.zeros_like(fresh)
    for signs in range(len(weight)):
        kept = [slice(-least, None) if signs >> axis & 1 else slice(least) for axis, least in enumerate(low)]
        result[(signs, *kept)] = weight[(signs, *kept)]
    return Adapted(weight=result, how=f"modes {_shape(old)} to {_shape(new)}")


def _first_layer(weight: Tensor, fresh: Tensor, source: Fields, target: Fields) -> Adapted:
    """(M, M, 1, …): frames and channels, then coordinates."""
    trained, result = weight.flatten(1), fresh.flatten(1).clone()
    old_axes, new_axes = len(source.grid), len(target.grid)
    frames = min(source.history, target.history)
    old = torch.unflatten(trained[:, :-old_axes], 1, (source.history, -1))[:, -frames:]
    new = torch.unflatten(result[:, :-new_axes], 1, (target.history, -1))
    new[:, -frames:] = laid_over(new[:, -frames:], old)
    result[:, -new_axes:] = laid_over(result[:, -new_axes:], trained[:, -old_axes:])
    return Adapted(weight=result.view_as(fresh), how=_inputs(source, target))


def _second_layer(weight: Tensor, fresh: Tensor, source: Fields, target: Fields) -> Adapted | None:
    """(D, M, 1, …)."""
    if len(weight) != len(fresh):
        return None
    merged = laid_over(fresh.flatten(1), weight.flatten(1))
    return Adapted(weight=merged.view_as(fresh), how=_inputs(source, target))


def _last_layer(weight: Tensor, fresh: Tensor, source: Fields, target: Fields) -> Adapted | None:
    """(S·C, …). Frames beyond the trained horizon begin as its last."""
    old = torch.unflatten(weight, 0, (source.horizon, -1))
    new = torch.unflatten(fresh, 0, (target.horizon, -1))
    if old.shape[2:] != new.shape[2:]:
        return None
    frames = old[torch.arange(target.horizon, device=old.device).clamp(max=source.horizon - 1)]
    horizon = _change("horizon of", source.horizon, target.horizon, "frames")
    return Adapted(weight=laid_over(new, frames).flatten(0, 1), how=_words(_channels(source, target), horizon))


def _moments(weight: Tensor, fresh: Tensor, source: Fields, target: Fields) -> Adapted | None:
    """(D, 2C): means, then standard deviations."""
    if len(weight) != len(fresh):
        return None
    merged = laid_over(torch.unflatten(fresh, 1, (2, -1)), torch.unflatten(weight, 1, (2, -1)))
    return Adapted(weight=merged.flatten(1), how=_channels(source, target))


def _classes(weight: Tensor, fresh: Tensor, source: Fields, target: Fields) -> Adapted | None:
    """(classes, …): a class stays with its dataset where the datasets are known, else with its number."""
    if weight.shape[1:] != fresh.shape[1:]:
        return None
    if source.datasets == target.datasets or not (source.datasets and target.datasets):
        return Adapted(weight=laid_over(fresh, weight), how=_change("", len(weight), len(fresh), "classes"))
    known = [name for name in target.datasets if name in source.datasets]
    result = fresh.clone()
    for name in known:
        result[target.datasets.index(name)] = weight[source.datasets.index(name)]
    return Adapted(weight=result, how=f"{len(known)} of {len(target.datasets)} datasets known") if known else None


def _inputs(source: Fields, target: Fields) -> str:
    """What differs in what goes in."""
    history = _change("history of", source.history, target.history, "frames")
    return _words(_channels(source, target), history, _change("", len(source.grid), len(target.grid), "axes of space"))


def _channels(source: Fields, target: Fields) -> str:
    return _change("", len(source.channels), len(target.channels), "channels")


def _change(before: str, old: int, new: int, after: str) -> str:
    """As `history of 10 to 4 frames`; nothing where nothing differs."""
    return "" if old == new else f"{before} {old} to {new} {after}".strip()


def _words(*changes: str) -> str:
    return ", ".join(filter(None, changes))


def _shape(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
