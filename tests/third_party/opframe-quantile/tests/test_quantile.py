"""Distributions before and after, and the way back."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from opframe_quantile import Quantile
from opframe_quantile.map import QuantileMap
from torch import Tensor

from opframe_registry import DataError, Metadata

METADATA = Metadata(trajectories=2, frames=9, grid=(16, 16), channels=("u", "v"), predicted=("u", "v"))


def frames(count: int = 40) -> Tensor:
    """A channel with a heavy tail, and one with two peaks a thousand from zero."""
    random = torch.randn(count, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    return torch.stack([random[:, 0].mul(1.5).exp(), 1000 + random[:, 1].sign() * 3 + 0.2 * random[:, 1]], 1)


def fitted(*pieces: Tensor, **settings: Any) -> QuantileMap:
    made = Quantile(**settings).build(METADATA)
    assert isinstance(made, QuantileMap)
    made.fit(pieces or [frames()])
    return made


def test_channels_become_uniform() -> None:
    mapped = fitted().apply(frames())
    assert float(mapped.amin()) == pytest.approx(-1, abs=1e-3)
    assert float(mapped.amax()) == pytest.approx(1, abs=1e-3)
    for channel in range(2):
        quarters = torch.quantile(mapped[:, channel].flatten(), torch.tensor([0.25, 0.5, 0.75]))
        torch.testing.assert_close(quarters, torch.tensor([-0.5, 0.0, 0.5]), atol=0.1, rtol=0)


def test_or_normal() -> None:
    mapped = fitted(to="normal").apply(frames())
    for channel in range(2):
        values = mapped[:, channel]
        assert abs(float(values.mean())) < 0.1
        assert float(values.std()) == pytest.approx(1, abs=0.1)
        assert float((values.abs() < 1).float().mean()) == pytest.approx(0.683, abs=0.03)


@pytest.mark.parametrize("settings", [{}, {"to": "normal"}, {"pieces": 2}, {"pieces": 17, "sample": 50}])
def test_the_way_back_is_the_inverse_also_beyond_what_was_seen(settings: dict[str, Any]) -> None:
    normalization = fitted(**settings)
    wide = torch.cat([frames(), frames() * 1.5, frames() - 20, -frames()])
    back = normalization.restore(normalization.apply(wide.clone()))
    scale = frames().std((0, 2, 3), keepdim=True) + 1e-3 * wide.abs()
    assert float(((back - wide).abs() / scale).max()) < 5e-3


def test_the_map_is_continuous_and_rises() -> None:
    normalization = fitted()
    rising = torch.linspace(-5, 200, 512).view(2, 1, 16, 16).expand(2, 2, 16, 16)
    scores = normalization.apply(rising.clone())[:, 0].flatten()
    assert (scores.diff() > 0).all()


def test_a_constant_channel_becomes_zero_and_comes_back() -> None:
    for value in (0.0, 5.0, -3e7):
        constant = frames()
        constant[:, 1] = value
        normalization = fitted(constant)
        mapped = normalization.apply(constant.clone())
        assert (mapped[:, 1] == 0).all()
        torch.testing.assert_close(normalization.restore(mapped)[:, 1], constant[:, 1])
        assert normalization.apply(constant + 1).isfinite().all()


def test_a_value_that_comes_often_is_no_step() -> None:
    rain = frames().sub(1).clamp(min=0)  # mostly none
    normalization = fitted(rain)
    around = torch.zeros(1, 2, 16, 16)
    around[..., 0] = 1e-4
    assert float(normalization.apply(around)[:, 0].diff(dim=-1).abs().max()) < 0.01


def test_missing_values_teach_nothing_and_stay_missing() -> None:
    holes = frames()
    holes[:, :, 3:6] = torch.nan
    whole = torch.cat([frames()[:, :, :3], frames()[:, :, 6:]], 2)
    one, two = fitted(holes), fitted(whole)
    assert torch.equal(one.values, two.values)
    assert torch.equal(one.apply(holes.clone()).isnan(), holes.isnan())


def test_a_channel_without_a_value_is_named() -> None:
    empty = frames()
    empty[:, 1] = torch.nan
    with pytest.raises(DataError, match="channel 'v' has no value"):
        fitted(empty)


def test_a_sample_stands_for_all() -> None:
    whole, sampled = fitted(*frames().split(3)), fitted(*frames().split(3), sample=2000)
    torch.testing.assert_close(whole.apply(frames()), sampled.apply(frames()), atol=0.15, rtol=0)
    again = fitted(*frames().split(3), sample=2000)
    assert torch.equal(again.values, sampled.values)


def test_what_was_learnt_is_kept_and_must_fit() -> None:
    normalization = fitted()
    other = Quantile().build(METADATA)
    other.load_state_dict(normalization.state_dict())
    copy = pickle.loads(pickle.dumps(normalization))
    for again in (other, copy):
        assert torch.equal(again.apply(frames()), normalization.apply(frames()))
    narrow = {name: value[:1] for name, value in normalization.state_dict().items()}
    with pytest.raises(ValueError, match="do not fit 2 channels"):
        other.load_state_dict(narrow)


def test_frames_of_any_number_of_axes_and_type_come_back_as_such() -> None:
    normalization = fitted()
    batch = frames().view(4, 10, 2, 16, 16)
    torch.testing.assert_close(normalization.apply(batch.clone()).flatten(0, 1), normalization.apply(frames()))
    for dtype in (torch.float64, torch.bfloat16):
        assert normalization.apply(frames().to(dtype)).dtype == dtype
    scores = normalization.apply(frames()).requires_grad_()
    normalization.restore(scores).sum().backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert (scores.grad > 0).all()
