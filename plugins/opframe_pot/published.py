"""Published checkpoints of patch transformers: what their shapes and their arguments say.

The shapes decide. Arguments carry the names of the published constructors, or those of their training scripts.

Legend: T frames in, S frames out, C channels, N axes of space, P side of a patch, D width, h heads, E = D/h,
M = C·P + N + 1 channels inside the patch embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from opframe.layers.checks import shape_of
from opframe_registry import Backbone, ConfigError, Fields, Published

MODES = 32
"""With what the published networks were trained, and what is taken where a file does not say."""

_TAKEN, _LEFT_OUT = "taken as it is", "left out (the published 3-D network does not use its classification head)"
_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "width": ("embed_dim", "width"),
    "depth": ("depth", "n_layers"),
    "heads": ("n_blocks",),
    "patch": ("patch_size",),
    "output_width": ("out_layer_dim",),
    "normalize": ("normalize",),
    "time_aggregation": ("time_agg",),
    "classes": ("n_cls",),
    "grid": ("img_size", "res"),
    "history": ("in_timesteps", "T_in"),
    "horizon": ("out_timesteps", "T_bundle"),
    "channels": ("in_channels", "out_channels"),
    "activation": ("act",),
}


@frozen(kw_only=True)
class PublishedSettings:
    """What a file says: the shared keys of the component, its fields, and what had to be assumed."""

    keys: Mapping[str, Any]
    fields: Fields
    assumed: Mapping[str, str] = field(factory=dict)


def read(arguments: Mapping[str, Any], weights: Mapping[str, Tensor], hidden: int) -> PublishedSettings:
    """Read what DPOT and MoE-POT share; `hidden` is the hidden width of a block's perceptron.

    Raises ConfigError where tensors are missing, where arguments contradict the shapes, or where they ask for what
    a patch transformer of ours cannot do.
    """
    keys, fields = _keys(weights), _fields(weights)
    told = {"grid": fields.grid, "history": fields.history, "horizon": fields.horizon}
    _compare(arguments, {**keys, **told, "channels": len(fields.channels), "activation": "gelu"})
    assumed = {"channels": f"named {fields.channels[0]} and so on, the file has no names"}
    modes = arguments.get("modes")
    if modes is None:
        assumed["modes"] = f"{MODES}, the published default"
    keys |= {"modes": modes or MODES, "mlp_ratio": _mlp_ratio(arguments, keys["width"], hidden)}
    if not _classifies(fields):
        keys["classes"] = 0
    return PublishedSettings(keys=keys, fields=fields, assumed=assumed)


def as_published(found: PublishedSettings, backbone: Backbone, weights: Mapping[str, Tensor]) -> Published:
    """The answer of `Backbone.from_published`, once the component is made of the keys.

    Raises ConfigError where the file has a tensor that the network has no place for.
    """
    with torch.device("meta"):
        places = backbone.build(found.fields).state_dict().keys()
    mapped = {name: _TAKEN if name in places else _LEFT_OUT for name in weights}
    for name, fate in mapped.items():
        if fate != _TAKEN and (_classifies(found.fields) or not name.startswith("cls_head.")):
            raise ConfigError(f"the tensor {name} has no place in {backbone.name}")
    return Published(
        backbone=backbone,
        fields=found.fields,
        weights={name: weight for name, weight in weights.items() if name in places},
        mapped=mapped,
        assumed=found.assumed,
    )


def _classifies(fields: Fields) -> bool:
    return len(fields.grid) == 2


def _keys(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The keys that shapes tell."""
    blocks = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    return {
        "width": shape_of(weights, "pos_embed")[1],
        "depth": len(blocks),
        "heads": shape_of(weights, "blocks.0.filter.w1")[1],  # (2, h, E, E)
        "patch": shape_of(weights, "patch_embed.proj.0.weight")[-1],  # (M, C + N + 1, P, P)
        "output_width": shape_of(weights, "out_layer.0.weight")[1],  # (D, output_width, P, P)
        "normalize": "scale_feats_mu.weight" in weights,
        "time_aggregation": "exp_mlp" if "time_agg_layer.gamma" in weights else "mlp",
        "classes": len(weights["cls_head.4.bias"]) if "cls_head.4.bias" in weights else 0,
    }


def _fields(weights: Mapping[str, Tensor]) -> Fields:
    """The fields that shapes tell. Raises ConfigError where other channels go in than come out."""
    inner, inputs, *kernel = shape_of(weights, "patch_embed.proj.0.weight")
    axes, patch = len(kernel), kernel[-1]
    channels, predicted = inputs - axes - 1, (inner - axes - 1) // patch
    outputs = shape_of(weights, "out_layer.4.weight")[0]  # S·C
    if channels != predicted:
        raise ConfigError(f"{channels} channels go in and {predicted} come out; a network of ours predicts all it gets")
    if channels < 1 or outputs % channels:
        raise ConfigError(f"{outputs} outputs for each point cannot be frames of {channels} channels")
    return Fields(
        channels=tuple(f"channel_{index}" for index in range(channels)),
        grid=tuple(patches * patch for patches in shape_of(weights, "pos_embed")[2:]),
        history=shape_of(weights, "time_agg_layer.w")[0],
        horizon=outputs // channels,
    )


def _compare(arguments: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Raises ConfigError with every argument that contradicts the shapes."""
    problems = [
        f"{name} = {arguments[name]!r}, but {'only ' if fact == 'activation' else 'the tensors are those of '}{value!r}"
        for fact, value in facts.items()
        for name in _ARGUMENTS[fact]
        if arguments.get(name) is not None and not _agrees(arguments[name], value)
    ]
    if problems:
        raise ConfigError(f"its arguments do not fit: {'; '.join(problems)}")


def _agrees(argument: Any, fact: Any) -> bool:
    """A grid may be given as one number; a truth value as 0 or 1."""
    if isinstance(fact, tuple):
        return fact == (tuple(argument) if isinstance(argument, Sequence) else (argument,) * len(fact))
    return bool(argument == fact)


def _mlp_ratio(arguments: Mapping[str, Any], width: int, hidden: int) -> float:
    """A ratio with ⌊width · ratio⌋ = hidden: the argument, where it is one. Raises ConfigError where it is not."""
    told = arguments.get("mlp_ratio")
    if told is None:
        ratio = hidden / width
        return ratio if math.floor(width * ratio) == hidden else math.nextafter(ratio, math.inf)
    if math.floor(width * told) != hidden:
        raise ConfigError(
            f"its arguments do not fit: mlp_ratio = {told!r}, but the tensors are those of {hidden}/{width}"
        )
    return float(told)
