"""Weights of a trained FNO into one for other channels, another history or horizon, other datasets or modes.

Channels are slots and keep their positions; frames that go in are matched from the latest backwards, frames that come
out from the first onwards, modes by their frequency. Where a fresh tensor has more than the trained one, the rest keeps
its fresh values, but modes that were not trained are zero: the trained convolution stays what it is.

Legend: T frames in, S frames out, C channels, N axes of space, D width, M = T·C + N inputs of a point and as many
channels inside the embedding, s choices of signs, K kept modes of an axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from opframe.layers.changes import (
    changed,
    inputs_changed,
    laid_over,
    last_layer,
    moments_layer,
    words,
)
from opframe_registry import Adapted, Backbone, Change


def adapt_fno(backbone: Backbone, change: Change) -> Adapted | None:
    """What `Backbone.adapt` returns for an FNO."""
    rule = next((rule for start, rule in _RULES.items() if change.name.startswith(start)), None)
    return rule(change) if rule else Backbone.adapt(backbone, change)


def _spectral(change: Change) -> Adapted | None:
    """(s, K_0, …, 2D, D): frequencies of axis a are −K … −1 if bit a of the first index is set, else 0 … K−1."""
    weight, fresh = change.weight, change.fresh
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


def _first_layer(change: Change) -> Adapted:
    """(M, M, 1, …): frames and channels, then coordinates."""
    source, target = change.source, change.target
    trained, result = change.weight.flatten(1), change.fresh.flatten(1).clone()
    old_axes, new_axes = len(source.grid), len(target.grid)
    frames = min(source.history, target.history)
    old = torch.unflatten(trained[:, :-old_axes], 1, (source.history, -1))[:, -frames:]
    new = torch.unflatten(result[:, :-new_axes], 1, (target.history, -1))
    new[:, -frames:] = laid_over(new[:, -frames:], old)
    result[:, -new_axes:] = laid_over(result[:, -new_axes:], trained[:, -old_axes:])
    return Adapted(weight=result.view_as(change.fresh), how=_inputs(change))


def _first_bias(change: Change) -> Adapted:
    """(M,)."""
    return Adapted(weight=laid_over(change.fresh, change.weight), how=_inputs(change))


def _second_layer(change: Change) -> Adapted | None:
    """(D, M, 1, …)."""
    if len(change.weight) != len(change.fresh):
        return None
    merged = laid_over(change.fresh.flatten(1), change.weight.flatten(1))
    return Adapted(weight=merged.view_as(change.fresh), how=_inputs(change))


def _classes(change: Change) -> Adapted | None:
    """(classes, …): a class stays with its dataset where the datasets are known, else with its number."""
    weight, fresh, source, target = change.weight, change.fresh, change.source, change.target
    if weight.shape[1:] != fresh.shape[1:]:
        return None
    if source.datasets == target.datasets or not (source.datasets and target.datasets):
        return Adapted(weight=laid_over(fresh, weight), how=changed("", len(weight), len(fresh), "classes"))
    known = [name for name in target.datasets if name in source.datasets]
    result = fresh.clone()
    for name in known:
        result[target.datasets.index(name)] = weight[source.datasets.index(name)]
    return Adapted(weight=result, how=f"{len(known)} of {len(target.datasets)} datasets known") if known else None


def _inputs(change: Change) -> str:
    """What differs in what goes in."""
    axes = changed("", len(change.source.grid), len(change.target.grid), "axes of space")
    return words(inputs_changed(change), axes)


def _shape(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


_RULES: Mapping[str, Callable[[Change], Adapted | None]] = {
    "spectral_convs.": _spectral,
    "patch_embed.proj.0.weight": _first_layer,
    "patch_embed.proj.0.bias": _first_bias,
    "patch_embed.proj.2.weight": _second_layer,
    "fc2.": last_layer,
    "scale_feats.weight": moments_layer,
    "cls_head.4.": _classes,
}
"""By what names begin with."""
