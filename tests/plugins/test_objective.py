"""The auto-regressive objective: the published error, noise of the right size at its address, an honest roll-out."""

from __future__ import annotations

import attrs
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from opframe.mixture.conditions import changed, unknown_conditions
from opframe_autoregressive import RelativeL2
from opframe_autoregressive.loss import relative_l2
from opframe_registry import Batch, Conditions, ConfigError, Fields, Prediction
from support import GOLDEN


class Recorder(nn.Module):
    """Predicts a weighted sum of the window, and keeps what it was given."""

    def __init__(self, horizon: int = 1) -> None:
        super().__init__()
        self.horizon = horizon
        self.weight = nn.Parameter(torch.tensor(0.7))
        self.windows: list[Tensor] = []

    def forward(self, window: Tensor, conditions: Conditions | None = None) -> Prediction:
        self.windows.append(window.detach())
        frames = torch.stack([window.mean(1) * (index + 1) for index in range(self.horizon)], dim=1)
        return Prediction(field=self.weight * frames, penalties={"balance": self.weight**2})


def fields(horizon: int = 1) -> Fields:
    return Fields(channels=("u", "v"), grid=(16, 12), history=5, horizon=horizon)


def batch_of(size: int, frames: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(
        inputs=torch.randn(size, 5, 2, 16, 12, generator=generator) * torch.tensor([1.0, 50.0]).view(1, 1, 2, 1, 1),
        targets=torch.randn(size, frames, 2, 16, 12, generator=generator),
        mask=torch.ones(1),
        conditions=unknown_conditions(fields(), size, torch.device("cpu")),
        seeds=torch.arange(size) * 7919 + 3,
    )


def part(batch: Batch, index: list[int]) -> Batch:
    """Some samples of a batch, in some order."""
    names = ("inputs", "targets", "seeds")
    conditions = changed(batch.conditions, lambda value: value[index] if len(value) == len(batch.seeds) else value)
    return attrs.evolve(batch, **{name: getattr(batch, name)[index] for name in names}, conditions=conditions)


def test_the_error_is_the_published_one() -> None:
    golden = load_file(GOLDEN / "relative_l2.safetensors")
    prediction, target, mask = (golden[name].permute(0, 3, 4, 1, 2) for name in ("prediction", "target", "mask"))
    masked = relative_l2(prediction, target, mask)
    assert torch.allclose(masked, golden["per_sample"], rtol=1e-5)
    assert torch.allclose(masked.sum(), golden["sum_over_batch"], rtol=1e-5)
    unmasked = relative_l2(prediction, target, torch.ones(1))
    assert torch.allclose(unmasked.sum(), golden["unmasked_sum"], rtol=1e-5)


def test_points_and_channels_under_the_mask_do_not_count() -> None:
    target, prediction = torch.randn(2, 3, 2, 8, 8), torch.randn(2, 3, 2, 8, 8)
    mask = torch.ones(2, 1, 2, 8, 8)
    mask[:, :, :, ::2] = 0
    mask[0, :, 1] = 0
    mask[1] = 0
    expected = (prediction - target)[0, :, 0, 1::2].norm() / target[0, :, 0, 1::2].norm()
    assert torch.allclose(relative_l2(prediction, target, mask), torch.stack([expected, torch.tensor(0.0)]))
    assert torch.equal(relative_l2(prediction, target, mask), relative_l2(prediction, target, mask.bool()))


@pytest.mark.parametrize(("settings", "per_norm"), [({}, 5e-4), ({"noise": 2e-3}, 2e-3), ({"noise_rms": 0.1}, None)])
def test_noise_has_the_size_that_is_asked_for(settings: dict[str, float], per_norm: float | None) -> None:
    model, batch = Recorder(), batch_of(40)
    RelativeL2(**settings).build(fields())(model, batch)
    noise = model.windows[0] - batch.inputs
    norm = batch.inputs.pow(2).sum((1, 3, 4)).sqrt()
    expected = per_norm * norm if per_norm else 0.1 * batch.inputs.pow(2).mean((1, 3, 4)).sqrt()
    scaled = noise / expected[:, None, :, None, None]
    assert float(scaled.std()) == pytest.approx(1.0, abs=0.02)
    assert float(scaled.mean()) == pytest.approx(0.0, abs=0.02)
    assert torch.allclose(scaled.std((0, 1, 3, 4)), torch.ones(2), atol=0.03)


def test_noise_differs_between_samples_frames_and_steps() -> None:
    model, batch = Recorder(), batch_of(2, frames=2)
    batch = attrs.evolve(batch, inputs=torch.ones_like(batch.inputs))
    RelativeL2(frames=2).build(fields())(model, batch)
    first, second = model.windows
    again = second[:, 0] - first[:, 1]
    noise = torch.stack([first[0, 0], first[0, 1], first[1, 0], 1 + again[0], 1 + again[1]]).flatten(1) - 1
    correlation = torch.corrcoef(noise) - torch.eye(5)
    assert float(correlation.abs().max()) < 0.25


def test_noise_does_not_depend_on_how_a_batch_is_split() -> None:
    loss, whole = RelativeL2(frames=3, noise=0.1).build(fields()), batch_of(6, frames=3)
    together, apart = Recorder(), Recorder()
    loss(together, whole)
    order = [4, 1, 0, 5, 3, 2]
    for index in (order[:1], order[1:4], order[4:]):
        loss(apart, part(whole, index))
    for step, window in enumerate(together.windows):
        pieces = torch.cat([apart.windows[step], apart.windows[3 + step], apart.windows[6 + step]])
        assert torch.equal(window[order], pieces)


@pytest.mark.parametrize(("frames", "horizon"), [(1, 1), (3, 1), (4, 2), (6, 6)])
def test_the_roll_out_and_its_gradient_are_those_of_a_loop_by_hand(frames: int, horizon: int) -> None:
    model, by_hand = Recorder(horizon), Recorder(horizon)
    batch = batch_of(3, frames)
    mask = torch.ones(3, frames, 2, 1, 1)
    mask[0, :2, 1] = 0
    losses = RelativeL2(frames=frames, noise=0.0, penalty_weight=0.25).build(fields(horizon))(
        model, attrs.evolve(batch, mask=mask)
    )
    window, error, penalty = batch.inputs, torch.tensor(0.0), torch.tensor(0.0)
    for start in range(0, frames, horizon):
        prediction = by_hand(window)
        stop = start + horizon
        error = error + relative_l2(prediction.field, batch.targets[:, start:stop], mask[:, start:stop]).sum() / 3
        penalty = penalty + prediction.penalties["balance"]
        window = torch.cat([window, prediction.field], dim=1)[:, horizon:]
    assert set(losses) == {"relative_l2", "balance", "by_dataset/relative_l2/"}
    assert torch.allclose(losses["by_dataset/relative_l2/"].mean(), error)
    assert losses["by_dataset/relative_l2/"].shape == (3,)
    assert torch.allclose(losses["relative_l2"], error)
    assert torch.allclose(losses["balance"], 0.25 * penalty)
    (losses["relative_l2"] + losses["balance"]).backward()
    (error + 0.25 * penalty).backward()
    assert model.weight.grad is not None
    assert by_hand.weight.grad is not None
    assert torch.allclose(model.weight.grad, by_hand.weight.grad)
    assert all(torch.equal(one, other) for one, other in zip(model.windows, by_hand.windows, strict=True))


def test_zero_noise_leaves_the_input_alone() -> None:
    model, batch = Recorder(), batch_of(2)
    RelativeL2(noise=0.0).build(fields())(model, batch)
    assert torch.equal(model.windows[0], batch.inputs)


def test_frames_that_are_no_multiple_of_the_horizon_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"frames = 5 .* 2 at a time; set frames to 4 or 6"):
        RelativeL2(frames=5).build(fields(horizon=2))
    with pytest.raises(ConfigError, match=r"set frames to 3, or"):
        RelativeL2(frames=2).build(fields(horizon=3))


def test_two_units_of_noise_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="noise and noise_rms"):
        RelativeL2(noise=1e-4, noise_rms=0.1)
