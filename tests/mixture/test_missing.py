"""Values that are missing are 0 for a model, count nowhere, and change nothing by what stands in their place."""

from __future__ import annotations

import math

import attrs
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from opframe.mixture.conditions import conditions_of
from opframe.mixture.loading import Sample, Windows
from opframe.mixture.resizing import check_resize, resize
from opframe.mixture.source import Source, read_finite, read_frames, read_into, read_known
from opframe_autoregressive import RelativeL2
from opframe_normalizers import MeanAndDeviation
from opframe_registry import Batch, Catalog, ConfigError, DataError, Fields, Metadata, Prediction, Window
from opframe_registry.components import Backbone

GRID = (16, 12)
FIELDS = Fields(channels=("u", "v", "pad"), grid=GRID, history=3, datasets=("sea", "air"), parameters=("nu", "k"))


@attrs.frozen
class InMemory:
    """Trajectories that are already there, (N, T, C, *grid)."""

    metadata: Metadata
    values: NDArray[np.float32]

    def read(self, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
        return self.values[trajectory, start:stop]


def in_memory(values: NDArray[np.float32], missing: float | None, title: str = "sea", **known: object) -> Source:
    names = ("u", "v")[: values.shape[2]]
    metadata = Metadata(
        trajectories=len(values),
        frames=values.shape[1],
        grid=values.shape[3:],
        channels=names,
        predicted=names,
        missing=missing,
        **known,
    )
    return Source(title=title, weight=1.0, rollout=1, trajectories=InMemory(metadata, values))


def sea(fill: float, land: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Three trajectories of eight frames with land; in frame 4 of the first, one more value of v is missing."""
    values = np.random.default_rng(3).normal(2.0, 1.0, (3, 8, 2, *GRID)).astype("f4")
    values[..., _land() if land is None else land] = fill
    values[0, 4, 1, 9, 9] = fill
    return values


def _land() -> NDArray[np.bool_]:
    land = np.zeros(GRID, np.bool_)
    land[:4, 2:7], land[12, 3] = True, True
    return land


def samples(*windows: tuple[int, int, int]) -> list[Sample]:
    return [Sample(window=Window(*window), seed=index) for index, window in enumerate(windows)]


def batch_of(sources: list[Source], *windows: tuple[int, int, int], frames: int = 3) -> Batch:
    return Windows(sources=sources, fields=FIELDS, frames=frames).batch(samples(*windows), torch.empty, lambda: False)


@pytest.mark.parametrize("fill", [math.nan, -999.0, 1e20])
def test_what_is_missing_is_zero_in_the_units_of_the_model_and_marked(fill: float) -> None:
    plain = in_memory(sea(fill), fill)
    normalization = MeanAndDeviation().build(plain.metadata)
    normalization.load_state_dict({"mean": torch.tensor([2.0, 3.0]), "deviation": torch.tensor([4.0, 5.0])})
    source = attrs.evolve(plain, normalization=normalization)
    frames, known = read_known(source, 0, 2, 8, FIELDS)
    expected = np.ones((6, 3, *GRID), np.bool_)
    expected[..., _land()] = False
    expected[2, 1, 9, 9] = False
    assert np.array_equal(known.numpy(), expected)
    raw = torch.from_numpy(sea(fill)[0, 2:])
    normal = (raw - torch.tensor([2.0, 3.0]).view(2, 1, 1)) / torch.tensor([4.0, 5.0]).view(2, 1, 1)
    assert torch.equal(frames[:, :2], torch.where(known[:, :2], normal, 0.0))
    assert torch.equal(frames[:, 2], known[:, 2].float())
    assert torch.equal(read_frames(source, 0, 2, 8, FIELDS), frames)
    assert np.array_equal(read_finite(source, 0, 2, 8), sea(fill)[0, 2:], equal_nan=True)


def test_data_without_missing_values_are_read_as_ever_and_wholly_known() -> None:
    source = in_memory(sea(0.5), None)
    frames, known = read_known(source, 1, 0, 4, FIELDS)
    assert torch.equal(frames, read_frames(source, 1, 0, 4, FIELDS))
    assert (known.shape, known.item()) == ((1, 1, 1, 1), True)
    filled = torch.zeros(frames.shape, dtype=torch.bool)
    read_into(frames, source, 1, 0, filled)
    assert filled.all()


@pytest.mark.parametrize(
    ("missing", "bad"), [(None, math.nan), (-999.0, math.nan), (-999.0, math.inf), (math.nan, math.inf)]
)
def test_a_value_that_is_neither_finite_nor_the_missing_one_is_named(missing: float | None, bad: float) -> None:
    values = sea(0.0 if missing is None else missing)
    values[1, 5, 1, 7, 2] = bad
    source = in_memory(values, missing)
    for read in (read_finite, lambda *window: read_frames(*window, FIELDS)):
        with pytest.raises(DataError, match=rf"sea: trajectory 1 holds {bad} in frame 5, channel 'v', .*\(7, 2\)"):
            read(source, 1, 2, 8)


@pytest.mark.parametrize(
    ("mode", "grid"), [("bilinear", (32, 18)), ("bilinear", (7, 5)), ("average", (4, 4)), ("crop", (9, 7))]
)
def test_a_point_is_known_if_all_that_it_is_made_of_are(mode: str, grid: tuple[int, int]) -> None:
    """Whoever changes the values on land changes, by plain resizing, exactly what is not known."""
    other = resize(torch.from_numpy(sea(5.0)[0]), grid, mode) != resize(torch.from_numpy(sea(-7.0)[0]), grid, mode)
    for fill in (math.nan, -999.0):
        source = attrs.evolve(in_memory(sea(fill), fill), resize=mode)
        frames, known = read_known(source, 0, 0, 8, attrs.evolve(FIELDS, grid=grid))
        assert torch.equal(known[:, :2], ~other)
        assert 0 < int(known[:, :2].sum()) < known[:, :2].numel()
        plain = resize(torch.from_numpy(sea(0.0)[0]), grid, mode)
        assert torch.equal(frames[:, :2], torch.where(known[:, :2], plain, 0.0))


def test_waves_need_all_points() -> None:
    with pytest.raises(ConfigError, match=r"'fourier': sea .* misses values \(nan stands for them\)"):
        check_resize("sea", (8, 8), (16, 16), "fourier", math.nan)
    check_resize("sea", (8, 8), (8, 8), "fourier", math.nan)
    check_resize("sea", (8, 8), (16, 16), "fourier")


def test_a_batch_says_what_is_missing_exactly_and_where_its_inputs_are_whole() -> None:
    sources = [in_memory(sea(math.nan), math.nan), in_memory(sea(0.5), None, "air")]
    batch = batch_of(sources, (0, 0, 0), (0, 0, 2), (1, 0, 0))
    assert not batch.complete
    mask = np.ones((3, 3, 3, *GRID), "f4")
    mask[:2, ..., _land()] = 0.0
    mask[0, 1, 1, 9, 9] = 0.0  # frame 4 of a window from 0 is its second target
    assert np.array_equal(batch.mask.numpy(), mask)
    valid = np.ones((3, 1, *GRID), np.bool_)
    valid[:2, :, _land()] = False
    valid[1, 0, 9, 9] = False  # and an input of one from 2
    assert np.array_equal(batch.conditions.valid.numpy(), valid)
    whole = batch_of(sources, (1, 0, 0), (1, 2, 1))
    assert whole.complete
    assert (whole.mask.shape, whole.conditions.valid.shape) == ((1, 1, 1, 1, 1), (1, 1, *GRID))
    assert torch.equal(whole.inputs[0], batch.inputs[2])


def test_conditions_are_those_of_each_trajectory_by_the_numbers_that_are_used() -> None:
    own = in_memory(
        sea(0.5), None, parameters={"nu": (1.0, 2.0, 3.0), "other": (9.0,)}, time_step=0.5, boundary="periodic"
    )
    sides = ("wall to open", "pole")
    air = in_memory(sea(0.5), None, "air", parameters={"k": (7.0,)}, spacing=(0.1, 0.2), boundary=sides)
    sources = [attrs.evolve(own, excluded=(0,), stride=2), air]
    told = batch_of(sources, (0, 0, 0), (1, 2, 0), (0, 1, 0), frames=1).conditions
    nan = math.nan
    assert np.array_equal(told.parameters.numpy(), [[2.0, nan], [nan, 7.0], [3.0, nan]], equal_nan=True)
    assert np.array_equal(told.time_step.numpy(), [1.0, nan, 1.0], equal_nan=True)
    spacing = torch.tensor([[nan, nan], [0.1, 0.2], [nan, nan]])
    assert torch.equal(told.spacing.nan_to_num(-1), spacing.nan_to_num(-1))
    assert told.boundary.tolist() == [[[1, 1], [1, 1]], [[2, 7], [9, 9]], [[1, 1], [1, 1]]]
    assert told.dataset.tolist() == [0, 1, 0]
    new = attrs.evolve(sources[0], title="elsewhere")
    alone = conditions_of([new, new], [1, 0], FIELDS)
    assert (alone.parameters[:, 0].tolist(), alone.dataset.tolist()) == ([3.0, 2.0], [-1, -1])
    with pytest.raises(ValueError, match="parameter 'nu' has 2 values for 3 trajectories"):
        attrs.evolve(own.metadata, trajectories=3, parameters={"nu": (1.0, 2.0)})


def network(catalog: Catalog) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = catalog.get(Backbone, "unet")(width=4, levels=2).build(FIELDS)
    return network


def trained(network: nn.Module, fill: float, frames: int, steps: int) -> list[float]:
    """The losses of some steps on a sea of two trajectories."""
    loss = RelativeL2(frames=frames, noise=0.01).build(FIELDS)
    optimizer, losses = torch.optim.Adam(network.parameters(), 1e-2), []
    for step in range(steps):
        batch = batch_of([in_memory(sea(fill), fill)], (0, 0, step % 2), (0, 1, step % 3), frames=frames)
        optimizer.zero_grad()
        total = loss(network, batch)["relative_l2"]
        total.backward()
        optimizer.step()
        losses.append(total.item())
    return losses


def test_training_does_not_depend_on_what_stands_for_a_missing_value(catalog: Catalog) -> None:
    losses = {fill: trained(network(catalog), fill, frames=3, steps=4) for fill in (math.nan, -999.0, 1e30)}
    assert np.isfinite(losses[math.nan]).all()
    assert losses[math.nan] == losses[-999.0] == losses[1e30]
    assert losses[math.nan][-1] != losses[math.nan][0]


class Free(nn.Module):
    """Predicts a field of its own for every call, whatever it is given, and keeps the windows."""

    def __init__(self, calls: int, size: int) -> None:
        super().__init__()
        self.fields = nn.Parameter(torch.randn(calls, size, 1, 3, *GRID))
        self.windows: list[Tensor] = []

    def forward(self, window: Tensor, conditions: object) -> Prediction:
        self.windows.append(window.detach())
        return Prediction(field=self.fields[len(self.windows) - 1] + 0 * window[:, -1:])


def test_missing_points_get_no_gradient_no_noise_and_no_prediction() -> None:
    batch = batch_of([in_memory(sea(math.nan), math.nan)], (0, 0, 1), (0, 1, 0))
    model = Free(3, 2)
    loss = RelativeL2(frames=3, noise=0.1).build(FIELDS)(model, batch)["relative_l2"]
    loss.backward()
    assert model.fields.grad is not None
    gradient = model.fields.grad[:, :, 0].movedim(0, 1)  # (B, frames, C, *grid)
    assert torch.equal(gradient != 0, batch.mask.bool())
    valid = batch.conditions.valid[:, None]
    for number, window in enumerate(model.windows):
        assert (window.masked_select(~valid) == 0).all()
        assert (window != 0).all(1, keepdim=True).masked_select(valid).all(), number


def test_noise_is_relative_to_the_values_that_are_there() -> None:
    batch = batch_of([in_memory(sea(math.nan), math.nan)], *[(0, 1, 0)] * 40, frames=1)
    model = Free(1, 40)
    RelativeL2(noise_rms=0.1).build(FIELDS)(model, batch)
    there = np.broadcast_to(~_land(), (3, *GRID))
    for channel in (0, 1):
        noise = (model.windows[0] - batch.inputs)[:, :, channel].numpy()[:, there]
        size = 0.1 * np.sqrt(np.square(batch.inputs[0, :, channel].numpy()[there]).mean())
        assert noise.std() == pytest.approx(size, rel=0.03)


def test_a_sample_costs_the_same_whatever_its_neighbours_miss() -> None:
    sources = [in_memory(sea(math.nan), math.nan), in_memory(sea(0.5), None, "air")]
    windows, frames = [(1, 1, 0), (0, 0, 0), (1, 0, 1)], 2
    together = batch_of(sources, *windows, frames=frames)
    loss = RelativeL2(frames=frames, noise_rms=0.1).build(FIELDS)
    torch.manual_seed(0)
    model = Free(frames, 3)
    mean = loss(model, together)["relative_l2"]
    alone = []
    for index, window in enumerate(windows):
        one = attrs.evolve(batch_of(sources, window, frames=frames), seeds=together.seeds[index : index + 1])
        part = Free(frames, 1)
        part.fields.data = model.fields.data[:, index : index + 1]
        alone.append(loss(part, one)["relative_l2"])
        assert all(torch.equal(a[index : index + 1], b) for a, b in zip(model.windows, part.windows, strict=True))
    assert torch.allclose(mean, torch.stack(alone).mean(), rtol=1e-6)


def test_what_is_missing_everywhere_costs_nothing_and_gives_no_nan(catalog: Catalog) -> None:
    values = sea(math.nan)
    values[1], values[2, 3] = math.nan, math.nan  # a trajectory, and a frame of another
    batch = batch_of([in_memory(values, math.nan)], (0, 1, 0), (0, 2, 0))
    model = network(catalog)
    loss = RelativeL2(frames=3).build(FIELDS)
    total = loss(model, batch)["relative_l2"]
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)
    free = Free(3, 2)
    loss(free, attrs.evolve(batch, mask=batch.mask * torch.tensor([1, 1, 0]).view(3, 1, 1)))["relative_l2"].backward()
    assert free.fields.grad is not None
    assert (free.fields.grad[:, 0] == 0).all()
    assert (free.fields.grad[0, 1] == 0).all()
    assert (free.fields.grad[1:, 1, :, :2] != 0).any()
