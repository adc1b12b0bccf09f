"""Each way of resizing keeps what it promises to keep, and the mask of evaluation stays right."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve
from torch import Tensor

from opframe.config.settings import Resize
from opframe.mixture.resizing import check_resize, resize
from opframe.mixture.source import Source, evaluation_mask, read_frames
from opframe.run import assembly
from opframe.run.experiment import load_experiment
from opframe_registry import Catalog, ConfigError, Fields
from support import waves, write_prepared
from tests.mixture.test_data_protocol import in_memory


def waves_on(grid: tuple[int, ...], longest: int) -> Tensor:
    """(1, 2, *grid) float64: products of waves up to number `longest` along each axis, at the points i/N."""
    generator = np.random.default_rng(0)
    result = np.zeros((1, 2, *grid))
    for channel in range(2):
        for _ in range(6):
            product = np.array(generator.normal())
            for size in grid:
                number, phase = generator.integers(longest + 1), generator.uniform(0, 2 * math.pi)
                product = product[..., None] * np.cos(2 * math.pi * number * np.arange(size) / size + phase)
            result[0, channel] += product
    return torch.from_numpy(result)


def resized(source: Source, mode: Resize) -> Source:
    """The source, resized in another way."""
    return evolve(source, resize=mode)


@pytest.mark.parametrize("native", [(9,), (12, 9), (8, 10, 7)])
@pytest.mark.parametrize("factor", [0.75, 1.6, 2])
def test_fourier_is_exact_in_float64_for_waves_that_both_grids_carry(native: tuple[int, ...], factor: float) -> None:
    grid = tuple(round(size * factor) for size in native)
    longest = (min(*native, *grid) - 1) // 2
    expected = waves_on(grid, longest)
    assert (resize(waves_on(native, longest), grid, "fourier") - expected).norm() <= 1e-13 * expected.norm()


@pytest.mark.parametrize(("own", "size", "expected"), [(8, 16, 4), (8, 12, 4), (8, 7, None), (8, 6, None)])
def test_fourier_splits_the_shortest_wave_of_an_even_grid(own: int, size: int, expected: int | None) -> None:
    """On 8 points wave 4 is (-1)^i, of which nobody knows the phase: its interpolant is the cosine."""
    values = torch.cos(math.pi * torch.arange(own, dtype=torch.float64)).view(1, 1, own)
    points = torch.arange(size, dtype=torch.float64) / size
    wanted = torch.zeros(size, dtype=torch.float64) if expected is None else torch.cos(2 * math.pi * expected * points)
    assert (resize(values, (size,), "fourier")[0, 0] - wanted).abs().max() <= 1e-14


def test_fourier_takes_the_waves_away_that_the_new_grid_cannot_carry_and_keeps_its_shortest() -> None:
    points = torch.arange(16, dtype=torch.float64) / 16
    kept = torch.cos(2 * math.pi * 4 * points) + torch.sin(2 * math.pi * 3 * points)
    values = kept + torch.cos(2 * math.pi * 5 * points)
    coarse = resize(values.view(1, 1, 16), (8,), "fourier")
    assert (coarse[0, 0] - kept[::2]).abs().max() <= 1e-14


def test_average_keeps_the_mean_of_every_cell() -> None:
    values = torch.arange(2 * 4 * 6, dtype=torch.float32).view(1, 2, 4, 6)
    averaged = resize(values, (2, 2), "average")
    assert averaged[0, 0].tolist() == [[4.0, 7.0], [16.0, 19.0]]
    assert torch.equal(averaged.mean((2, 3)), values.mean((2, 3)))


def test_crop_is_the_central_part_as_it_is() -> None:
    values = torch.randn(2, 1, 8, 5)
    assert torch.equal(resize(values, (4, 4), "crop"), values[:, :, 2:6, 0:4])


@pytest.mark.parametrize("mode", ["bilinear", "fourier", "average", "crop"])
def test_a_grid_that_fits_is_never_touched(mode: Resize) -> None:
    values = torch.randn(2, 1, 8, 6)
    assert resize(values, (8, 6), mode) is values


@pytest.mark.parametrize(
    ("mode", "native", "words"),
    [
        ("average", (48, 64), r"'average': burgers is given on the grid \[48, 64\], and data.grid = \[32, 32\]"),
        ("average", (16, 16), "a whole number of its points"),
        ("crop", (64, 16), "a part of it cannot have more points"),
    ],
)
def test_what_cannot_be_resized_is_named_with_both_grids(mode: Resize, native: tuple[int, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_resize("burgers", native, (32, 32), mode)


@pytest.mark.parametrize("mode", ["bilinear", "fourier"])
def test_errors_of_data_with_added_points_count_where_the_data_have_points(mode: Resize) -> None:
    source, fields = in_memory(np.zeros((1, 2, 1, 8, 4), "f4")), Fields(channels=("a",), grid=(16, 12), history=1)
    mask = evaluation_mask(source.metadata, fields)[0].bool()
    assert mask.nonzero().tolist() == [[x, y] for x in range(0, 16, 2) for y in range(0, 12, 3)]


def test_fourier_leaves_the_values_at_the_points_of_the_mask_as_they_are() -> None:
    values = np.random.default_rng(0).normal(size=(1, 2, 1, 8, 4)).astype("f4")
    fields = Fields(channels=("a",), grid=(16, 12), history=1)
    source = resized(in_memory(values), "fourier")
    kept = evaluation_mask(source.metadata, fields)[0].bool()
    frames = read_frames(source, 0, 0, 2, fields)
    assert torch.allclose(frames[:, 0, kept], torch.from_numpy(values).flatten(3)[0, :, 0], atol=1e-6)


@pytest.mark.parametrize("mode", ["bilinear", "fourier", "average", "crop"])
def test_errors_of_data_with_fewer_points_count_everywhere(mode: Resize) -> None:
    source, fields = in_memory(np.zeros((1, 2, 1, 8, 8), "f4")), Fields(channels=("a",), grid=(4, 4), history=1)
    assert read_frames(resized(source, mode), 0, 0, 2, fields).shape == (2, 1, 4, 4)
    assert evaluation_mask(source.metadata, fields).all()


def test_an_experiment_resizes_training_and_test_data_as_its_settings_say(experiment: Path, catalog: Catalog) -> None:
    """On waves that 16 points carry, the Fourier way from 32 points is as if the data had been given on 16."""
    write_prepared(experiment.parent / "two.h5", waves(6, 10, 32, channels=2))
    sources = assembly.open_sources(load_experiment(experiment, catalog, ["data.resize=fourier"]))
    expected = torch.from_numpy(waves(6, 10, 16, channels=2)).permute(0, 3, 4, 1, 2)
    for source, first in ((sources.train[1], 0), (sources.test[1], 4)):
        assert torch.allclose(read_frames(source, 1, 0, 10, sources.fields), expected[first + 1], atol=1e-5)


def test_an_experiment_whose_data_cannot_be_resized_is_an_error(experiment: Path, catalog: Catalog) -> None:
    given = load_experiment(experiment, catalog, ["data.resize=crop", "data.grid=[32, 32]"])
    with pytest.raises(ConfigError, match=r"data.resize = 'crop': one is given on the grid \[16, 16\]"):
        assembly.open_sources(given)
