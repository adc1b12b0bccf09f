"""Published checkpoints of the FNO of DPOT's and MoE-POT's authors: what their shapes and their arguments say.

The shapes decide, but they do not tell the grid, and of the T·C inputs and S·C outputs of a point not each number.
Arguments carry the names of the published constructor, or those of its training script.

Legend: T frames in, S frames out, C channels, N axes of space, D width, K kept modes of an axis, s = 2 signs
of them, c = 2 real and imaginary part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from opframe.layers.checks import shape_of
from opframe_fno import FNO
from opframe_registry import ConfigError, Fields, Published

GRID = 128
"""Points of each axis on which the published networks were trained, taken where a file does not say."""

_TAKEN, _NO_CLASSES = "taken as it is", "left out (a classification head without classes)"
_MODES_FIRST = "taken, its modes first"


def read(arguments: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Published:
    """What `Backbone.from_published` answers. Raises ConfigError for a file that cannot be used here."""
    assumed = {"channels": "named channel_0 and so on, the file has no names"}
    backbone, fields = _backbone(weights), _fields(arguments, weights, assumed)
    _compare(arguments, backbone, fields)
    with torch.device("meta"):
        places = backbone.build(fields).state_dict().keys()
    ours = modes_first(weights)
    known = {name: _TAKEN for name in weights if name in places} | {
        name: _MODES_FIRST for name in weights if name not in ours
    }
    for name in weights:
        if name not in known and (backbone.classes or not name.startswith("cls_head.")):
            raise ConfigError(f"the tensor {name} has no place in {backbone.name}")
    mapped = {name: known.get(name, _NO_CLASSES) for name in weights}
    taken = {name: weight for name, weight in ours.items() if name in places}
    return Published(backbone=backbone, fields=fields, weights=taken, mapped=mapped, assumed=assumed)


def modes_first(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names and shapes to ours. Raises ConfigError where the second half of a spectral weight is missing.

    The two halves (c, D, D, K_0, K_1), for frequencies 0 … K−1 and −K … −1 along x, become one (s, K_0, K_1, c·D, D).
    """
    result = dict(weights)
    for first in [name for name in weights if name.endswith(".weights1")]:
        second = f"{first.removesuffix('1')}2"
        shape_of(weights, second)
        halves = torch.stack([result.pop(first), result.pop(second)])
        result[first.removesuffix("s1")] = rearrange(halves, "s c i o ... -> s ... (c i) o").contiguous()
    return result


def _backbone(weights: Mapping[str, Tensor]) -> FNO:
    """The component that shapes tell."""
    modes = shape_of(weights, "spectral_convs.0.weights1")[3:]
    return FNO(
        width=shape_of(weights, "convs.0.weight")[0],
        depth=sum(name.startswith("convs.") and name.endswith(".weight") for name in weights),
        modes=modes[:1] if len(set(modes)) == 1 else modes,
        group_norm="ln_layers.0.weight" in weights,
        normalize="scale_feats.weight" in weights,
        classes=len(weights["cls_head.4.bias"]) if "cls_head.4.bias" in weights else 0,
    )


def _fields(arguments: Mapping[str, Any], weights: Mapping[str, Tensor], assumed: dict[str, str]) -> Fields:
    """Channels, frames and grid. What is taken for granted is added to `assumed`."""
    _, inputs, *kernel = shape_of(weights, "patch_embed.proj.0.weight")
    if set(kernel) != {1}:
        raise ConfigError("it embeds patches of several points; an FNO of ours embeds every point")
    inputs, outputs = inputs - len(kernel), shape_of(weights, "fc2.weight")[0]
    channels = _channels(arguments, weights, outputs, assumed)
    if inputs % channels or outputs % channels:
        raise ConfigError(f"{inputs} inputs and {outputs} outputs of a point cannot be frames of {channels} channels")
    points = _told(arguments, "img_size", "res")
    if points is None:
        assumed["grid"] = f"{GRID} points along each axis"
    return Fields(
        channels=tuple(f"channel_{index}" for index in range(channels)),
        grid=(points or GRID,) * len(kernel),
        history=inputs // channels,
        horizon=outputs // channels,
    )


def _channels(
    arguments: Mapping[str, Any], weights: Mapping[str, Tensor], outputs: int, assumed: dict[str, str]
) -> int:
    """C, from the weights of mean and deviation, the arguments, or the frames that come out."""
    if "scale_feats.weight" in weights:
        return shape_of(weights, "scale_feats.weight")[1] // 2
    told = _told(arguments, "n_channels")
    if told is not None:
        return told
    horizon = _told(arguments, "out_timesteps", "T_bundle")
    if horizon is None:
        assumed["horizon"] = "1 frame"
    return max(1, outputs // (horizon or 1))


def _compare(arguments: Mapping[str, Any], backbone: FNO, fields: Fields) -> None:
    """Raises ConfigError with every argument that contradicts the shapes."""
    modes = backbone.modes_along(fields.grid)
    facts: dict[str, Any] = {
        "width": backbone.width,
        "n_layers": backbone.depth,
        "modes": modes[0],
        **{f"modes{axis + 1}": kept for axis, kept in enumerate(modes)},
        "use_ln": backbone.group_norm,
        "normalize": backbone.normalize,
        "n_cls": backbone.classes,
        "patch_size": 1,
        "n_channels": len(fields.channels),
        **dict.fromkeys(("in_timesteps", "T_in"), fields.history),
        **dict.fromkeys(("out_timesteps", "T_bundle"), fields.horizon),
    }
    problems = [
        f"{name} = {arguments[name]!r}, but the tensors are those of {fact!r}"
        for name, fact in facts.items()
        if arguments.get(name) is not None and arguments[name] != fact
    ]
    if problems:
        raise ConfigError(f"its arguments do not fit: {'; '.join(problems)}")


def _told(arguments: Mapping[str, Any], *names: str) -> int | None:
    """The first of these arguments that is given."""
    given = (arguments[name] for name in names if arguments.get(name) is not None)
    return next(given, None)
