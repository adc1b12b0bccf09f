"""Small pictures of roll-outs, drawn in a moment: for those who follow a run while it trains."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import nn

from opframe.evaluation.figures import Panels, file_name
from opframe.evaluation.protocol import Evaluator
from opframe.evaluation.report import panels_of

_SMALLEST, _LARGEST = 64, 192  # pixels along the longer side of a field
_THINNEST = 8  # pixels that a grid of one axis is high
_SPACE = 2  # white pixels between fields


def rollout_pictures(evaluator: Evaluator, backbone: nn.Module) -> dict[str, NDArray[np.uint8]]:
    """One roll-out of each dataset by its title, as `picture` draws it. Leaves the model in eval mode."""
    return {
        file_name(source.title): picture(panels_of(evaluator, source, backbone))
        for source in (*evaluator.sources, *evaluator.zero_shot)
    }


def picture(panels: Panels) -> NDArray[np.uint8]:
    """Truth, prediction and error below each other, (height, width, 3), each row on one colour scale.

    Truth and prediction share theirs, that of the error has white for none. What is not a number is white.
    """
    error = panels.prediction - panels.truth
    known = panels.truth[np.isfinite(panels.truth)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    largest = float(np.abs(error[np.isfinite(error)]).max(initial=0.0)) or 1.0
    rows = [
        _row(panels.truth, "viridis", low, high),
        _row(panels.prediction, "viridis", low, high),
        _row(error, "RdBu_r", -largest, largest),
    ]
    return np.concatenate([_framed(row) for row in rows])


def _row(values: NDArray[np.float32], colours: str, low: float, high: float) -> NDArray[np.uint8]:
    """Fields (T, X, Y) beside each other, x to the right and y upwards."""
    scaled = (_sized(values) - low) / ((high - low) or 1.0)
    drawn = colormaps[colours](np.clip(scaled, 0.0, 1.0), bytes=True)[..., :3]
    drawn[~np.isfinite(scaled)] = 255
    return np.concatenate([_framed(field.swapaxes(0, 1)[::-1]) for field in drawn], axis=1)


def _sized(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fields with every point repeated, or only some of the points, so that they are neither small nor large."""
    longer = max(values.shape[1:])
    thinned = values[:, :: -(-longer // _LARGEST), :: -(-longer // _LARGEST)]
    times = max(-(-_SMALLEST // longer), 1)
    return thinned.repeat(times, 1).repeat(max(times, _THINNEST // values.shape[2]), 2)


def _framed(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.pad(pixels, [(0, _SPACE), (0, _SPACE), (0, 0)], constant_values=255)
