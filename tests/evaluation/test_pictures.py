"""Small pictures of roll-outs show fields upright, each row on one scale, and what is missing in white."""

from __future__ import annotations

import numpy as np
import pytest

from opframe.evaluation.figures import Panels
from opframe.evaluation.pictures import picture


def panels(truth: np.ndarray, prediction: np.ndarray) -> Panels:
    return Panels(title="a", channel="u", truth=truth, prediction=prediction, frames=(1, 2), time_step=None)


def test_a_picture_has_x_to_the_right_y_upwards_and_white_where_nothing_is_known() -> None:
    truth = np.zeros((2, 64, 64), dtype="f4")
    truth[0, 40:, 50:] = 1.0  # at the right, above
    truth[0, :8, :8] = np.nan  # at the left, below
    drawn = picture(panels(truth, np.zeros_like(truth)))
    assert (drawn.dtype, drawn.shape[2]) == (np.uint8, 3)
    dark, bright = drawn[30, 10].astype(int), drawn[5, 60].astype(int)
    assert bright.sum() > dark.sum()
    assert np.array_equal(drawn[60, 3], [255, 255, 255])
    error = drawn[-66:]
    assert np.ptp(error[30, 70]) < 10  # none: near to white or grey
    assert error[5, 60, 2] > error[5, 60, 0]  # too little: blue


@pytest.mark.parametrize("shape", [(8, 8), (1024, 1), (500, 300)])
def test_a_picture_is_neither_small_nor_large(shape: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).normal(size=(3, *shape)).astype("f4")
    height, width, _ = picture(panels(frames, 2 * frames)).shape
    assert 180 <= width <= 3 * 200
    assert 20 <= height <= 3 * 200


def test_frames_without_a_number_are_drawn() -> None:
    nothing = np.full((1, 16, 16), np.nan, dtype="f4")
    assert picture(panels(nothing, nothing)).min() == 255
