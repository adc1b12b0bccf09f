"""Normalizers learn what they say, are undone to the last digits, and never divide by zero."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from opframe_normalizers import MeanAndDeviation, Range, RootMeanSquare, Unchanged
from opframe_registry import DataError, Metadata, Normalization, Normalizer

LEARNING = [MeanAndDeviation(), RootMeanSquare(), Range(), Range(lowest=0)]
ALL = [Unchanged(), *LEARNING]


def metadata(channels: int, axes: int = 2) -> Metadata:
    names = tuple(f"c{number}" for number in range(channels))
    return Metadata(trajectories=1, frames=4, grid=(4,) * axes, channels=names, predicted=names)


def fitted(normalizer: Normalizer, *pieces: Tensor) -> Normalization:
    made = normalizer.build(metadata(pieces[0].shape[1], pieces[0].ndim - 2))
    made.fit(pieces)
    return made


def named(value: Any) -> str:
    return f"{value.name} {getattr(value, 'lowest', '')}".strip()


@pytest.mark.parametrize("normalizer", ALL, ids=named)
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.floats(-20, 20),
    offset=st.floats(0, 4),
    channels=st.integers(1, 3),
    axes=st.integers(1, 3),
)
def test_restore_undoes_apply(
    normalizer: Normalizer, seed: int, size: float, offset: float, channels: int, axes: int
) -> None:
    """To the digits that a channel of such an offset has in float32."""
    random = torch.Generator().manual_seed(seed)
    frames = (torch.randn(4, channels, *(3,) * axes, generator=random) + 10**offset) * 10**size
    known = fitted(normalizer, frames)
    copy = pickle.loads(pickle.dumps(known))
    again = normalizer.build(metadata(channels, axes))
    again.load_state_dict(known.state_dict())
    for one in (known, copy, again):
        seen = one.apply(frames.clone())
        assert seen.isfinite().all()
        batch = one.restore(seen[None])
        assert batch.data_ptr() != seen.data_ptr()
        assert torch.allclose(batch[0], frames, rtol=1e-5, atol=1e-6 * frames.abs().max().item())
        assert torch.equal(seen, known.apply(frames.clone()))


def test_what_is_learnt_is_what_numpy_finds_in_pieces_of_any_size() -> None:
    values = np.random.default_rng(0).normal(3, 2, (10, 2, 5, 4)).astype("f4")
    flat = np.moveaxis(values, 1, 0).reshape(2, -1).astype("f8")
    pieces = [torch.from_numpy(piece) for piece in (values[:3], values[3:4], values[4:])]
    expected = {
        "dataset": {"mean": flat.mean(1), "deviation": flat.std(1)},
        "rms": {"rms": np.sqrt((flat**2).mean(1))},
        "min_max": {"low": flat.min(1), "high": flat.max(1)},
    }
    for normalizer in LEARNING:
        state = fitted(normalizer, *pieces).state_dict()
        assert state.keys() == expected[normalizer.name].keys()
        for name, value in state.items():
            assert value.dtype == torch.float64
            assert value.numpy() == pytest.approx(expected[normalizer.name][name], rel=1e-12)


@pytest.mark.parametrize("normalizer", LEARNING, ids=named)
def test_values_that_are_missing_change_nothing(normalizer: Normalizer) -> None:
    values = torch.randn(6, 2, 5, 4, generator=torch.Generator().manual_seed(0)).double() + 2
    holed = values.clone()
    holed[:, 1, 0] = torch.nan
    holed[2] = torch.nan  # a frame in which nothing is known
    kept = [0, 1, 3, 4, 5]
    whole = fitted(normalizer, values[kept]).state_dict()
    part = fitted(normalizer, values[kept][:, :, 1:]).state_dict()
    found = fitted(normalizer, holed[:2], holed[2:3], holed[3:]).state_dict()
    for name, value in found.items():
        assert value.tolist() == pytest.approx([whole[name][0].item(), part[name][1].item()], rel=1e-12)
    with pytest.raises(DataError, match="channel 'c1' has no value in the training data"):
        fitted(normalizer, torch.where(torch.tensor([False, True])[:, None, None], torch.nan, values))


@pytest.mark.parametrize("normalizer", LEARNING, ids=named)
@pytest.mark.parametrize("value", [0.0, 0.1, -3e4, 1e-42, 1e30])
def test_a_constant_channel_stays_finite_and_is_restored(normalizer: Normalizer, value: float) -> None:
    frames = torch.full((3, 1, 4, 4), value)
    frames[0, 0, 0, 0] = torch.nextafter(frames[0, 0, 0, 0], torch.tensor(0.0))  # constant up to rounding
    known = fitted(normalizer, frames)
    seen = known.apply(frames.clone())
    assert seen.isfinite().all()
    assert torch.allclose(known.restore(seen), frames, rtol=1e-6)
    if normalizer.name != "rms":
        assert (seen.abs() <= abs(value) * 2e-7 + 1e-44).all()


def test_units_of_the_model_are_those_that_are_promised() -> None:
    values = torch.randn(50, 2, 6, 6, generator=torch.Generator().manual_seed(0)) * 3 + 7
    mean, rms, signed, unsigned = (fitted(each, values).apply(values.clone()) for each in LEARNING)
    assert mean.mean((0, 2, 3)).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert mean.std((0, 2, 3), correction=0).tolist() == pytest.approx([1, 1], rel=1e-5)
    assert rms.square().mean((0, 2, 3)).tolist() == pytest.approx([1, 1], rel=1e-5)
    assert signed.aminmax() == (-1, 1)
    assert unsigned.aminmax() == (0, 1)


WRONG = [
    ({}, "expected mean and deviation of 2 channels each, got none"),
    ({"mean": [0.0, 0.0], "deviation": [1.0]}, r"got mean \(2,\), deviation \(1,\)"),
    ({"mean": [0.0, 0.0], "deviation": [1.0, 0.0]}, "divided by above 0"),
    ({"mean": [0.0, float("nan")], "deviation": [1.0, 1.0]}, "must be finite"),
]


@pytest.mark.parametrize(("state", "words"), WRONG)
def test_numbers_that_do_not_fit_are_refused(state: dict[str, list[float]], words: str) -> None:
    made = MeanAndDeviation().build(metadata(2))
    with pytest.raises(ValueError, match=words):
        made.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    with pytest.raises(ValueError, match="divided by above 0"):
        Range().build(metadata(1)).load_state_dict({"low": torch.tensor([1.0]), "high": torch.tensor([0.0])})


def test_gradients_pass_through_what_is_restored() -> None:
    known = fitted(MeanAndDeviation(), torch.randn(4, 1, 4, 4) * 5)
    frames = torch.zeros(1, 1, 1, 4, 4, requires_grad=True)
    known.restore(frames).sum().backward()
    assert frames.grad is not None
    assert torch.allclose(frames.grad, known.state_dict()["deviation"].float())
