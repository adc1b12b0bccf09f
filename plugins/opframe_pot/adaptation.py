"""Weights of a trained patch transformer into one for another grid, other channels, another history or horizon.

What this rests on: the channel axis is made of slots, so channels keep their positions; the coordinates are the last
inputs of the patch embedding; the latest frames are those that a prediction depends on, so frames are matched from the
latest backwards.

Legend: T frames in, C channels, N axes of space, P side of a patch, D width, M = C·P + N + 1 channels
inside the patch embedding, t time from 0 to 1 over the frames, A_t = diag(cos(t·γ)) W_t matrices that aggregate frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from opframe.layers.changes import (
    channels_changed,
    history_changed,
    inputs_changed,
    laid_over,
    last_layer,
    moments_layer,
)
from opframe.layers.dense import unit_interval
from opframe_pot.embedding import resize_position
from opframe_registry import Adapted, Backbone, Change

_FIRST, _FREQUENCIES = "patch_embed.proj.0.weight", "time_agg_layer.gamma"
_OF_SPACE = ("patch_embed.", "pos_embed", "out_layer.")
_LEAST_COSINE = 0.05


def adapt_patch_transformer(backbone: Backbone, change: Change) -> Adapted | None:
    """What `Backbone.adapt` returns for a patch transformer.

    With another number of axes of space, embedding and output layers begin fresh.
    """
    if len(change.source.grid) != len(change.target.grid) and change.name.startswith(_OF_SPACE):
        return None
    rule = _RULES.get(change.name)
    return rule(change) if rule else Backbone.adapt(backbone, change)


def _position(change: Change) -> Adapted | None:
    """(1, D, X', Y')."""
    weight, fresh = change.weight, change.fresh
    if weight.shape == fresh.shape:
        return Adapted(weight=weight)
    if weight.shape[:2] != fresh.shape[:2]:
        return None
    resized = resize_position(weight, fresh.shape[2:])
    old, new = ("x".join(map(str, tensor.shape[2:])) for tensor in (weight, fresh))
    return Adapted(weight=resized, how=f"position embedding resized from {old} to {new}")


def _first_convolution(change: Change) -> Adapted | None:
    """(M, C + N + 1, P, P). The weight of the time is scaled so that a frame keeps the time it had."""
    weight, fresh, coordinates = change.weight, change.fresh, _axes(change) + 1
    if weight.shape[2:] != fresh.shape[2:]:
        return None
    if _FIRST in change.weights:
        scale, _ = _times(change)
        weight = torch.cat([weight[:, :-1], weight[:, -1:] * scale], dim=1)
    slots = laid_over(fresh[:, :-coordinates], weight[:, :-coordinates])
    places = laid_over(fresh[:, -coordinates:], weight[:, -coordinates:])
    return Adapted(weight=torch.cat([slots, places], dim=1), how=inputs_changed(change))


def _first_bias(change: Change) -> Adapted | None:
    """(M,). It takes up the shift of the time."""
    if not _same_patch(change, 0):
        return None
    weight = change.weight
    if _FIRST in change.weights:
        _, shift = _times(change)
        weight = weight + shift * change.weights[_FIRST][:, -1].flatten(1).sum(1).to(weight)
    return Adapted(weight=laid_over(change.fresh, weight), how=inputs_changed(change))


def _times(change: Change) -> tuple[float, float]:
    """Scale and shift that make of a frame's time in the target its time in the source: both call the latest one 1.

    A single frame is at time 0.
    """
    old, new = change.source.history, change.target.history
    if old == new:
        return 1.0, 0.0
    if old == 1:
        return 0.0, 0.0
    scale = (new - 1) / (old - 1)
    return scale, 1.0 - scale


def _second_convolution(change: Change) -> Adapted | None:
    """(D, M, 1, 1)."""
    if len(change.weight) != len(change.fresh) or not _same_patch(change, 1):
        return None
    return Adapted(weight=laid_over(change.fresh, change.weight), how=channels_changed(change))


def _axes(change: Change) -> int:
    """N."""
    return len(change.target.grid)


def _same_patch(change: Change, axis: int) -> bool:
    """Whether an axis M belongs to patches of one side in both networks: otherwise its entries mean something else."""
    source, target = change.source, change.target
    old, new = change.weight.shape[axis] - _axes(change) - 1, change.fresh.shape[axis] - _axes(change) - 1
    return old * len(target.channels) == new * len(source.channels)


def _aggregation(change: Change) -> Adapted | None:
    """(T, D, D): W_t such that the A_t of the latest frames stay what they are.

    Of frames before the trained history nothing is known: they begin with no weight. Frames that are no longer given
    are taken to equal the earliest that is, whose A_t is therefore the sum of theirs; a field that does not change
    in time thus has the same latent. Where cos(t·γ) of a frame all but vanishes, W_t stays bounded.
    """
    old, new = len(change.weight), len(change.fresh)
    if change.weight.shape[1:] != change.fresh.shape[1:]:
        return None
    if old == new:
        return Adapted(weight=change.weight)
    matrices = change.weight * _cosines(old, change)
    kept = min(old, new)
    latest = matrices[-kept:].clone()
    latest[0] += matrices[:-kept].sum(0)
    padded = torch.cat([torch.zeros_like(matrices[:1]).expand(new - kept, -1, -1), latest])
    cosines = _cosines(new, change)
    return Adapted(weight=padded * cosines / cosines.square().clamp(min=_LEAST_COSINE**2), how=history_changed(change))


def _cosines(frames: int, change: Change) -> Tensor:
    """cos(t·γ), (T, D, 1); without γ, ones."""
    frequencies = change.weights.get(_FREQUENCIES)
    if frequencies is None:
        return torch.ones_like(change.weight[:1, :, :1])
    times = unit_interval(frames, change.weight)[:, None]
    return torch.cos(times * frequencies.to(change.weight))[..., None]


_RULES: Mapping[str, Callable[[Change], Adapted | None]] = {
    "pos_embed": _position,
    _FIRST: _first_convolution,
    "patch_embed.proj.0.bias": _first_bias,
    "patch_embed.proj.2.weight": _second_convolution,
    "time_agg_layer.w": _aggregation,
    "scale_feats_mu.weight": moments_layer,
    "scale_feats_sigma.weight": moments_layer,
    "out_layer.4.weight": last_layer,
    "out_layer.4.bias": last_layer,
}
