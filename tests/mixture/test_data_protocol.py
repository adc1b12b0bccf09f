"""Resizing, padding and masks are those of the DPOT data protocol."""

from __future__ import annotations

import json

import attrs
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch.nn.functional import interpolate

from opframe.mixture import source as mixture
from opframe.mixture.resizing import resize
from opframe.mixture.source import Source, channel_slots, evaluation_mask, open_source, read_frames
from opframe_registry import Catalog, DataError, Dataset, Fields, Metadata
from support import GOLDEN

CASES = json.loads((GOLDEN / "data_protocol.json").read_text())["cases"]


@attrs.frozen
class InMemory:
    """Trajectories that are already there, (N, T, C, *grid)."""

    metadata: Metadata
    values: NDArray[np.float32]

    def read(self, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
        return self.values[trajectory, start:stop]


def in_memory(values: NDArray[np.float32], predicted: int | None = None) -> Source:
    names = tuple(f"c{index}" for index in range(values.shape[2]))
    metadata = Metadata(
        trajectories=values.shape[0],
        frames=values.shape[1],
        grid=values.shape[3:],
        channels=names,
        predicted=names[:predicted],
    )
    return Source(title="memory", weight=1.0, rollout=1, trajectories=InMemory(metadata, values))


@pytest.mark.parametrize("case", CASES)
def test_resizing_padding_and_mask_are_those_of_the_published_protocol(case: str) -> None:
    golden = load_file(GOLDEN / "data_protocol.safetensors")
    settings = CASES[case]
    raw = golden[f"{case}/raw"].permute(2, 3, 0, 1)
    source = in_memory(raw[None].numpy(), settings["predicted_channels"])
    resolution, channels = settings["resolution"], settings["n_channels"]
    fields = Fields(channels=("c",) * channels, grid=(resolution, resolution), history=1)
    frames = read_frames(source, 0, 0, raw.shape[0], fields)
    expected = golden[f"{case}/padded"].permute(2, 3, 0, 1)
    assert (frames - expected).norm() <= 1e-6 * expected.norm()
    mask = golden[f"{case}/target_mask"].permute(2, 3, 0, 1)[0]
    assert torch.equal(evaluation_mask(source.metadata, fields), mask)


def test_a_window_is_resized_as_the_whole_trajectory_is() -> None:
    values = np.random.default_rng(0).normal(size=(1, 9, 2, 12, 20)).astype("f4")
    source, fields = in_memory(values), Fields(channels=("a", "b", "c"), grid=(16, 16), history=1)
    whole = read_frames(source, 0, 0, 9, fields)
    assert torch.equal(read_frames(source, 0, 3, 7, fields), whole[3:7])


def test_slots_carry_the_names_of_all_datasets_that_share_them() -> None:
    one, two = in_memory(np.zeros((1, 4, 1, 4, 4), "f4")), in_memory(np.zeros((1, 4, 2, 4, 4), "f4"))
    renamed = attrs.evolve(one.metadata, channels=("height",), predicted=("height",))
    one = attrs.evolve(one, trajectories=attrs.evolve(one.trajectories, metadata=renamed))
    assert channel_slots([one, two]) == ("height/c0", "c1")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_named_with_trajectory_frame_channel_and_point(bad: float) -> None:
    values = np.zeros((3, 6, 2, 4, 4), "f4")
    values[2, 4, 1, 3, 0] = bad
    fields = Fields(channels=("a", "b"), grid=(4, 4), history=1)
    with pytest.raises(DataError, match=r"memory: trajectory 2 .* frame 4, channel 'c1', at grid point \(3, 0\)"):
        read_frames(in_memory(values), 2, 1, 6, fields)


ORDERS = ((0, 1, 2, 3, 4), (0, 2, 3, 4, 1), (0, 3, 4, 1, 2))


@pytest.mark.parametrize("order", ORDERS, ids=["as packed", "as published, C before T", "as published"])
@pytest.mark.parametrize("grid", [(64, 64), (128, 128)], ids=["same grid", "resized"])
def test_one_value_that_is_not_finite_is_found_wherever_it_is(order: tuple[int, ...], grid: tuple[int, ...]) -> None:
    """The data are of several pieces, in whichever order their axes lie in memory."""
    stored = np.zeros([(1, 22, 3, 64, 64)[axis] for axis in order], "f4")
    values = stored.transpose(np.argsort(order))
    assert values.nbytes > 2 * mixture._PIECE
    fields = Fields(channels=("a", "b", "c", "d"), grid=grid, history=1)
    for frame, channel, x, y in [(0, 0, 0, 0), (21, 2, 63, 63), (9, 1, 31, 32), (21, 0, 0, 63)]:
        for bad in (np.nan, np.inf, -np.inf):
            values[0, frame, channel, x, y] = bad
            where = rf"holds {bad} in frame {frame}, channel 'c{channel}', at grid point \({x}, {y}\)"
            with pytest.raises(DataError, match=where):
                read_frames(in_memory(values), 0, 0, 22, fields)
            values[0, frame, channel, x, y] = 0.0
    read_frames(in_memory(values), 0, 0, 22, fields)


def test_infinities_that_cancel_are_found_and_large_values_are_none() -> None:
    values = np.full((1, 2, 1, 16, 16), 3e38, "f4")
    fields = Fields(channels=("a",), grid=(16, 16), history=1)
    assert torch.equal(read_frames(in_memory(values), 0, 0, 2, fields), torch.full((2, 1, 16, 16), 3e38))
    values[0, 1, 0, 2, 3], values[0, 1, 0, 9, 9] = np.inf, -np.inf
    with pytest.raises(DataError, match=r"holds inf in frame 1, channel 'c0', at grid point \(2, 3\)"):
        read_frames(in_memory(values), 0, 0, 2, fields)


def test_a_constant_axis_and_a_single_frame_are_read() -> None:
    field = np.random.default_rng(0).normal(size=(1, 1, 2, 16, 16)).astype("f4")
    values = np.broadcast_to(field, (1, 5, 2, 16, 16))
    fields = Fields(channels=("a", "b"), grid=(16, 16), history=1)
    assert torch.equal(
        read_frames(in_memory(values), 0, 1, 4, fields), torch.from_numpy(field[0]).expand(3, -1, -1, -1)
    )


@pytest.mark.parametrize("native", [(64, 64), (48, 96), (65, 64), (24, 32, 32), (33, 16, 64)])
def test_doubling_a_grid_gives_the_numbers_of_torch_to_the_last_bit(native: tuple[int, ...]) -> None:
    grid = tuple(2 * size for size in native)
    frames = torch.randn(3, 4, *native, generator=torch.Generator().manual_seed(0))
    expected = interpolate(frames, size=grid, mode="bilinear" if len(grid) == 2 else "trilinear")
    assert torch.equal(resize(frames, grid), expected)
    assert torch.equal(resize(frames[1:2, :1], grid), expected[1:2, :1])


def test_too_few_frames_for_a_window_are_an_error_that_counts_them(catalog: Catalog) -> None:

    component = catalog.get(Dataset, "prepared")(url="x.h5", label="short")
    trajectories = in_memory(np.zeros((1, 6, 1, 4, 4), "f4")).trajectories
    with pytest.raises(DataError, match="short: trajectories have 6 frames, but a window takes 11"):
        open_source(component, trajectories, history=10, frames=1)
    with pytest.raises(DataError, match="rollout = 5 after 4 frames"):
        open_source(attrs.evolve(component, rollout=5), trajectories, history=4, frames=1)


def test_a_stride_thins_frames_everywhere_alike(catalog: Catalog) -> None:
    values = np.arange(11, dtype="f4")[None, :, None, None, None] + np.zeros((2, 11, 1, 4, 4), "f4")
    trajectories = in_memory(values).trajectories
    component = catalog.get(Dataset, "prepared")(url="x.h5", stride=3)
    source = open_source(component, trajectories, history=2, frames=1)
    assert (source.metadata.frames, source.rollout, source.population(3).starts[0]) == (4, 2, 2)
    fields = Fields(channels=("a",), grid=(4, 4), history=2)
    assert read_frames(source, 1, 1, 4, fields)[:, 0, 0, 0].tolist() == [3.0, 6.0, 9.0]
