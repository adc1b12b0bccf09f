"""The diffusion-reaction solver: against published trajectories, against itself refined, and what it conserves."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from attrs import evolve
from torch import Tensor

from opframe_diffusion_reaction import DiffusionReaction
from opframe_diffusion_reaction.solver import SIDE, DiffusionReactionSolver, laplacian
from opframe_registry import Split

SAMPLE = Path(__file__).parents[2] / "configs" / "samples" / "pdebench_diffusion_reaction.h5"


@pytest.fixture(scope="module")
def published() -> Tensor:
    """Trajectories of PDEBench's generator, (n, T, C, X, Y)."""
    with h5py.File(SAMPLE) as file:
        return torch.from_numpy(file["data"][:]).permute(0, 3, 4, 1, 2)


def solve(solver: DiffusionReactionSolver, initial: Tensor) -> Tensor:
    """All frames, (n, T, C, X, Y) float64."""
    return torch.stack(list(solver.frames(initial)), 1).double()


def noise(solver: DiffusionReactionSolver, count: int) -> Tensor:
    return torch.stack([solver.initial(torch.Generator().manual_seed(seed)) for seed in range(count)])


def relative_error(actual: Tensor, expected: Tensor) -> Tensor:
    """Relative L2 error of each frame, the largest of all trajectories."""
    difference = (actual.double() - expected.double()).flatten(2).norm(dim=2)
    relative: Tensor = difference / expected.double().flatten(2).norm(dim=2)
    return relative.amax(0)


def test_published_trajectories_are_followed(published: Tensor) -> None:
    error = relative_error(solve(DiffusionReactionSolver(), published[:, 0]), published)
    print(f"relative L2 error: t=0 {error[0]:.1e}, t=0.05 {error[1]:.1e}, t=2.5 {error[50]:.1e}, t=5 {error[100]:.1e}")
    assert error[0] == 0.0
    assert error[1] < 1e-4
    assert error[50] < 1e-4
    assert error[100] < 1e-4
    assert error.max() < 2e-4


def test_the_error_in_time_is_below_that_of_the_published_trajectories(published: Tensor) -> None:
    solver = DiffusionReactionSolver(frame_count=21, duration=1.0)
    fine = solve(evolve(solver, refinement=4, dtype=torch.float64), published[:, 0])
    ours = relative_error(solve(solver, published[:, 0]), fine).max()
    theirs = relative_error(published[:, :21], fine).max()
    print(f"error in time: {ours:.1e}, of the published trajectories {theirs:.1e}")
    assert ours < 2e-5
    assert ours < theirs


def test_the_error_in_time_is_of_fourth_order() -> None:
    solver = DiffusionReactionSolver(resolution=32, frame_count=5, duration=0.4, dtype=torch.float64)
    initial = noise(solver, 2)
    fine = solve(evolve(solver, refinement=8), initial)
    errors = [relative_error(solve(evolve(solver, refinement=r), initial), fine)[1:].max() for r in (1, 2)]
    order = math.log2(errors[0] / errors[1])
    print(f"order in time {order:.2f}")
    assert order > 3.7


def test_single_precision_is_enough() -> None:
    solver = DiffusionReactionSolver()
    initial = noise(solver, 1)
    error = relative_error(solve(solver, initial), solve(evolve(solver, dtype=torch.float64), initial))
    print(f"float32 against float64: {error.max():.1e}")
    assert error.max() < 1e-6


def test_a_trajectory_is_the_same_solved_alone_or_together() -> None:
    solver = DiffusionReactionSolver(resolution=20, frame_count=11, duration=0.5, dtype=torch.float64)
    initial = noise(solver, 3) * torch.tensor([0.1, 3.0, 1.0], dtype=torch.float64)[:, None, None, None]
    alone = torch.cat([solve(solver, initial[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(alone, solve(solver, initial), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("resolution", "diffusion"), [(16, 5e-3), (64, 5e-3), (128, 5e-3), (64, 0.1)])
def test_steps_are_short_enough_for_the_largest_noise(resolution: int, diffusion: float) -> None:
    solver = DiffusionReactionSolver(
        resolution=resolution, diffusion_v=diffusion, frame_count=5, duration=0.2, dtype=torch.float64
    )
    sign = torch.where(
        torch.rand(1, 2, resolution, resolution, generator=torch.Generator().manual_seed(0)) < 0.5, -1, 1
    )
    initial = 5.5 * sign.double()
    error = relative_error(solve(solver, initial), solve(evolve(solver, refinement=4), initial))
    assert error.max() < 1e-4


def test_initial_states_are_unit_white_noise() -> None:
    solver = DiffusionReactionSolver(resolution=256)
    state = solver.initial(torch.Generator().manual_seed(0))
    assert state.shape == (2, 256, 256)
    assert abs(state.mean()) < 0.02
    assert abs(state.std() - 1.0) < 0.02
    assert abs((state[:, 1:] * state[:, :-1]).mean()) < 0.02
    assert abs((state[0] * state[1]).mean()) < 0.02


def test_a_uniform_state_follows_the_ordinary_equation() -> None:
    solver = DiffusionReactionSolver(
        resolution=4, frame_count=3, duration=2.0, k=0.3, refinement=4, dtype=torch.float64
    )
    state = torch.tensor([1.5, -0.5], dtype=torch.float64)[None, :, None, None].expand(1, 2, 4, 4)
    final = solve(solver, state)[0, -1]
    u, v, step = 1.5, -0.5, 1e-4
    for _ in range(20000):  # the midpoint rule
        half_u, half_v = u + step / 2 * (u - u**3 - 0.3 - v), v + step / 2 * (u - v)
        u, v = u + step * (half_u - half_u**3 - 0.3 - half_v), v + step * (half_u - half_v)
    torch.testing.assert_close(final[0], torch.full((4, 4), u, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(final[1], torch.full((4, 4), v, dtype=torch.float64), rtol=0, atol=1e-6)


def test_no_inhibitor_flows_through_the_boundary() -> None:
    solver = DiffusionReactionSolver(
        resolution=24, frame_count=201, duration=1.0, diffusion_v=0.05, dtype=torch.float64
    )
    mean = solve(solver, noise(solver, 1))[0].mean((2, 3))
    source = mean[:, 0] - mean[:, 1]
    weights = torch.tensor([1.0] + [4.0, 2.0] * 99 + [4.0, 1.0], dtype=torch.float64)  # Simpson's rule
    supplied = (weights * source).sum() * 0.005 / 3
    assert abs(mean[-1, 1] - mean[0, 1] - supplied) < 1e-8


def test_diffusion_alone_conserves_the_mean() -> None:
    state = torch.randn(2, 2, 12, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(
        laplacian(state, 0.1).sum((2, 3)), torch.zeros(2, 2, dtype=torch.float64), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize(("along_x", "along_y"), [(0, 0), (1, 0), (3, 2), (0, 7)])
def test_cosines_are_eigenfunctions_of_the_laplacian(along_x: int, along_y: int) -> None:
    cells = 16
    spacing = SIDE / cells
    angle = math.pi * (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    mode = torch.cos(along_x * angle)[:, None] * torch.cos(along_y * angle)[None, :]
    value = sum(-((2 / spacing * math.sin(k * math.pi / (2 * cells))) ** 2) for k in (along_x, along_y))
    torch.testing.assert_close(laplacian(mode[None, None], spacing)[0, 0], value * mode, rtol=1e-10, atol=1e-9)


def test_prepared_splits_are_read_back(tmp_path: Path) -> None:
    component = DiffusionReaction(resolution=8, frames=5, duration=0.2, train=3, test=2)
    component.prepare(tmp_path, lambda *_: None)
    solver = DiffusionReactionSolver(resolution=8, frame_count=5, duration=0.2)
    splits: tuple[tuple[Split, int], ...] = (("train", 3), ("test", 2))
    for split, count in splits:
        trajectories = component.build(split, tmp_path)
        assert trajectories.metadata.trajectories == count
        assert trajectories.metadata.time_step == pytest.approx(0.05)
        window = torch.from_numpy(np.ascontiguousarray(trajectories.read(count - 1, 0, 5)))
        expected = solve(solver, window[None, 0])[0]
        torch.testing.assert_close(window.double(), expected, rtol=1e-5, atol=1e-6)
