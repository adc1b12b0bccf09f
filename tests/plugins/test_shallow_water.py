"""The shallow-water solver: against published trajectories and exact solutions, its order, and what it conserves."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from attrs import evolve
from torch import Tensor
from torch.nn.functional import avg_pool2d

from opframe_registry import Split
from opframe_shallow_water import RadialDamBreak
from opframe_shallow_water.solver import SIDE, ShallowWaterSolver

SAMPLE = Path(__file__).parents[2] / "configs" / "samples" / "pdebench_radial_dam_break.h5"
double_precision = partial(ShallowWaterSolver, dtype=torch.float64)


@pytest.fixture(scope="module")
def published() -> tuple[Tensor, list[float]]:
    """Heights of PDEBench's generator, (n, T, 1, X, Y), and the radii they began from."""
    with h5py.File(SAMPLE) as file:
        return torch.from_numpy(file["data"][:]).permute(0, 3, 4, 1, 2), file["radius"][:].tolist()


def solve(solver: ShallowWaterSolver, initial: Tensor) -> Tensor:
    """The height of all frames, (n, T, 1, X, Y) float64."""
    return torch.stack(list(solver.frames(initial)), 1).double()


def last_state(solver: ShallowWaterSolver, initial: Tensor) -> Tensor:
    return list(solver.states(initial))[-1]


def relative_error(actual: Tensor, expected: Tensor) -> Tensor:
    """Relative L2 error of each frame, the largest of all trajectories."""
    difference = (actual.double() - expected.double()).flatten(2).norm(dim=2)
    relative: Tensor = difference / expected.double().flatten(2).norm(dim=2)
    return relative.amax(0)


def centres(cells: int) -> Tensor:
    return SIDE * (torch.arange(cells, dtype=torch.float64) + 0.5) / cells - SIDE / 2


def plane(height: Tensor, velocity: Tensor | float = 0.0) -> Tensor:
    """The state (1, 3, X, 2) of a plane wave along X."""
    return torch.stack([height, height * velocity, 0.0 * height])[None, :, :, None].expand(1, 3, -1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_published_trajectories_are_followed(published: tuple[Tensor, list[float]], dtype: torch.dtype) -> None:
    heights, radii = published
    solver = ShallowWaterSolver(dtype=dtype)
    error = relative_error(solve(solver, torch.stack([solver.dam(radius) for radius in radii])), heights)
    print(f"relative L2 error: t=0 {error[0]:.1e}, t=0.01 {error[1]:.1e}, t=0.5 {error[50]:.1e}, t=1 {error[100]:.1e}")
    assert error[0] == 0.0
    assert error.max() < 1e-6


def test_initial_states_are_dams_of_uniform_radius() -> None:
    solver = ShallowWaterSolver(resolution=100, smallest_radius=0.5, largest_radius=0.9)
    states = torch.stack([solver.initial(torch.Generator().manual_seed(seed)) for seed in range(200)])
    radii = ((states[:, 0] - 1.0).sum((1, 2)) * (SIDE / 100) ** 2 / math.pi).sqrt()
    assert set(states[0].flatten().tolist()) == {0.0, 1.0, 2.0}
    assert states[:, 1:].abs().max() == 0.0
    assert 0.49 < radii.min() < 0.51
    assert 0.89 < radii.max() < 0.91
    assert abs(radii.mean() - 0.7) < 0.03
    assert abs(radii.std() - 0.4 / math.sqrt(12)) < 0.02


def test_single_precision_is_enough() -> None:
    solver = ShallowWaterSolver()
    initial = solver.dam(0.6)[None]
    error = relative_error(solve(solver, initial), solve(evolve(solver, dtype=torch.float64), initial))
    print(f"float32 against float64: {error.max():.1e}")
    assert error.max() < 1e-6


def test_a_trajectory_is_the_same_solved_alone_or_together() -> None:
    solver = double_precision(resolution=32, frame_count=11)
    initial = torch.stack([solver.dam(radius) for radius in (0.3, 0.5, 0.7)])
    initial[1] *= 0.1
    alone = torch.cat([solve(solver, initial[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(alone, solve(solver, initial), rtol=1e-13, atol=1e-13)


def test_plane_waves_are_of_second_order() -> None:
    solutions = []
    for cells in (100, 200, 400, 800):
        solver = double_precision(resolution=cells, inner_height=1.2, frame_count=2, duration=0.5)
        initial = plane(1.0 + 0.1 * torch.exp(-(centres(cells) ** 2) / 0.18))
        solutions.append(last_state(solver, initial)[:, 0])
    changes = [(avg_pool2d(fine, (2, 1)) - coarse).abs().mean() for coarse, fine in pairwise(solutions)]
    orders = [math.log2(changes[i] / changes[i + 1]) for i in (0, 1)]
    print(f"orders of plane waves {orders[0]:.2f}, {orders[1]:.2f}")
    assert min(orders) > 1.8


def test_the_order_in_space_is_two() -> None:
    """With the same time step on all grids, the error of the splitting drops out of the differences."""
    solutions = []
    for cells, refinement in ((32, 4), (64, 2), (128, 1)):
        solver = double_precision(resolution=cells, inner_height=1.88, frame_count=6, duration=0.5)
        solver = evolve(solver, refinement=refinement)
        assert solver.steps_per_frame == 8
        x = centres(cells)
        initial = torch.zeros(1, 3, cells, cells, dtype=torch.float64)
        initial[0, 0] = 1.0 + 0.1 * torch.exp(-(x[:, None] ** 2 + x[None, :] ** 2) / 0.32)
        solutions.append(last_state(solver, initial)[:, 0])
    changes = [(avg_pool2d(fine, 2) - coarse).abs().mean() for coarse, fine in pairwise(solutions)]
    order = math.log2(changes[0] / changes[1])
    print(f"order in space {order:.2f}")
    assert order > 1.8


def middle_state(left: float, right: float) -> tuple[float, float, float]:
    """Height and velocity between the waves of a dam break (g = 1), and the speed of the bore, by bisection."""
    low, high = right, left
    for _ in range(100):
        height = 0.5 * (low + high)
        rarefied = 2.0 * (math.sqrt(left) - math.sqrt(height))
        shocked = (height - right) * math.sqrt(0.5 * (1.0 / height + 1.0 / right))
        low, high = (height, high) if rarefied > shocked else (low, height)
    return height, rarefied, height * rarefied / (height - right)


@pytest.mark.parametrize(("left", "right", "gravity"), [(2.0, 1.0, 1.0), (2.0, 0.1, 4.0)])
def test_a_plane_dam_break_agrees_with_the_exact_solution(left: float, right: float, gravity: float) -> None:
    cells, time, unit = 400, 0.8, math.sqrt(gravity)  # the solution scales: g = 1 at t is g = 4 at t / 2
    x = centres(cells)
    solver = double_precision(resolution=cells, gravity=gravity, inner_height=left, frame_count=2, duration=time / unit)
    computed = last_state(solver, plane(torch.where(x < 0, left, right).double()))[0, :2, :, 0]
    height, velocity, bore = middle_state(left, right)
    speed = x / time
    rarefaction = (2.0 * math.sqrt(left) - speed) ** 2 / 9.0
    exact = torch.where(speed < -math.sqrt(left), left, rarefaction)
    exact = torch.where(speed > velocity - math.sqrt(height), height, exact)
    exact = torch.where(speed > bore, right, exact)
    between = (speed > velocity - math.sqrt(height) + 0.15) & (speed < bore - 0.15)
    error, between_error = (computed[0] - exact).abs().mean() / exact.mean(), computed[0, between] / height - 1.0
    print(f"relative L1 error {error:.1e}, between the waves {between_error.abs().max():.1e}")
    assert error < 2e-3
    assert between_error.abs().max() < 2e-3
    assert (computed[1, between] / computed[0, between] / unit - velocity).abs().max() < 5e-3
    assert abs(x[computed[0] > 0.5 * (height + right)].max() - bore * time) < 2.0 * SIDE / cells


def test_a_rarefaction_through_the_critical_speed_spreads() -> None:
    """Both characteristics leave the interface while Roe's speed is zero: without the entropy fix it stays a jump."""
    cells, time, left, right = 200, 0.5, 1.0, 0.5
    gain = 2.0 * (math.sqrt(left) - math.sqrt(right))
    velocity = math.sqrt(0.5 * (left + right)) - gain * math.sqrt(right) / (math.sqrt(left) + math.sqrt(right))
    x = centres(cells)
    height = torch.where(x < 0, left, right).double()
    velocities = torch.where(x < 0, velocity, velocity + gain).double()
    solver = double_precision(resolution=cells, inner_height=left, frame_count=2, duration=time)
    computed = last_state(solver, plane(height, velocities))[0, 0, :, 0]
    celerity = ((velocity + 2.0 * math.sqrt(left) - x / time) / 3.0).clamp(math.sqrt(right), math.sqrt(left))
    assert (computed - celerity**2).abs().max() < 0.03


def test_water_at_rest_stays_at_rest() -> None:
    solver = ShallowWaterSolver(resolution=16, inner_height=1.3, outer_height=1.3, frame_count=11)
    initial = solver.dam(0.5)[None]
    assert torch.equal(last_state(solver, initial), initial.float())


def test_mass_and_momentum_are_conserved_until_waves_reach_the_boundary() -> None:
    solver = double_precision(frame_count=11)
    initial = solver.dam(0.5)[None]
    initial[:, 1] = 0.1 * (initial[:, 0] - 1.0)
    before, after = initial.sum((2, 3)), last_state(solver, initial).sum((2, 3))
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-9)


def test_waves_leave_through_the_boundary() -> None:
    solver = double_precision(resolution=100, inner_height=1.1, outer_height=1.1, frame_count=2, duration=6.0)
    initial = plane(1.0 + 0.1 * torch.exp(-(centres(100) ** 2) / 0.1))
    final = last_state(solver, initial)
    assert (final[:, 0] - 1.0).abs().max() < 1e-3
    assert final[:, 1:].abs().max() < 1e-3


def test_a_dam_break_keeps_its_symmetries() -> None:
    solver = double_precision(frame_count=11)
    height, along_x, along_y = last_state(solver, solver.dam(0.6)[None])[0]
    torch.testing.assert_close(height.flip(0), height, rtol=0, atol=1e-12)
    torch.testing.assert_close(height.flip(1), height, rtol=0, atol=1e-12)
    torch.testing.assert_close(along_x.flip(0), -along_x, rtol=0, atol=1e-12)
    # X is swept before Y: exchanging them is a symmetry only up to the error of the splitting.
    assert (height - height.T).norm() / height.norm() < 3e-3
    torch.testing.assert_close(along_x.abs().sum(), along_y.abs().sum(), rtol=2e-2, atol=0)


def test_the_sweeps_treat_both_axes_alike() -> None:
    solver = double_precision(resolution=64, frame_count=5, duration=0.5)
    wave = plane(1.0 + 0.5 * torch.exp(-(centres(64) ** 2) / 0.2), 0.3 * torch.sin(centres(64)))
    along_x = last_state(solver, wave)
    along_y = last_state(solver, wave.mT[:, [0, 2, 1]])
    torch.testing.assert_close(along_y.mT[:, [0, 2, 1]], along_x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("inner", "outer"), [(2.0, 1.0), (10.0, 0.1), (1.0, 2.0), (0.1, 10.0)])
def test_water_stays_deep_and_slower_than_the_time_step_allows(inner: float, outer: float) -> None:
    solver = ShallowWaterSolver(inner_height=inner, outer_height=outer)
    bound = 2.0 * math.sqrt(max(inner, outer))
    for state in solver.states(torch.stack([solver.dam(radius) for radius in (0.3, 0.7)])):
        height = state[:, 0]
        assert height.min() > 0.0
        assert (state[:, 1:].abs().amax(1) / height + height.sqrt()).max() < bound


def test_the_smallest_radius_is_not_above_the_largest() -> None:
    with pytest.raises(ValueError, match="largest_radius"):
        RadialDamBreak(smallest_radius=0.6, largest_radius=0.5)


def test_prepared_splits_are_read_back(tmp_path: Path) -> None:
    component = RadialDamBreak(resolution=16, frames=5, duration=0.2, train=3, test=2)
    component.prepare(tmp_path, lambda *_: None)
    solver = ShallowWaterSolver(resolution=16, frame_count=5, duration=0.2)
    splits: tuple[tuple[Split, int], ...] = (("train", 3), ("test", 2))
    for split, count in splits:
        trajectories = component.build(split, tmp_path)
        assert trajectories.metadata.trajectories == count
        assert trajectories.metadata.time_step == pytest.approx(0.05)
        window = torch.from_numpy(np.ascontiguousarray(trajectories.read(count - 1, 0, 5)))
        initial = torch.zeros(1, 3, 16, 16)
        initial[:, 0] = window[0]
        torch.testing.assert_close(window.double(), solve(solver, initial)[0], rtol=1e-5, atol=1e-6)
