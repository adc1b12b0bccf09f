"""Shallow water over a flat bottom by wave propagation, many trajectories at a time.

    h_t + (h u)_x + (h v)_y = 0
    (h u)_t + (h u² + g h²/2)_x + (h u v)_y = 0
    (h v)_t + (h u v)_x + (h v² + g h²/2)_y = 0

Scheme: R. J. LeVeque, "Wave propagation algorithms for multidimensional hyperbolic systems", J. Comput. Phys.
131 (1997) 327–353; a sweep along X, then one along Y in every step. Chapters named below are those of his
"Finite Volume Methods for Hyperbolic Problems" (2002).

Legend: h height, g gravity, c = √(g h); in a sweep u is the velocity along it and v the one across. States (h, h u,
h v) are (n, 3, X, Y). A sweep goes along the last axis, with N cells and N + 3 interfaces (two ghost cells at either
end). The jump at an interface is a sum of three waves, each with its speed: waves are (n, 3 waves, 3 equations,
across, interfaces), speeds the same without equations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import torch
from attrs import field, frozen
from attrs.validators import ge, gt
from torch import Tensor
from torch.nn.functional import pad

SIDE: Final = 5.0
"""Length of a side of the domain, (−2.5, 2.5)²."""

_COURANT: Final = 0.9
_GHOST_CELLS: Final = 2


@frozen(kw_only=True)
class ShallowWaterSolver:
    """Finite volumes on (−2.5, 2.5)² with open boundaries.

    A dam's radius is uniform between `smallest_radius` and `largest_radius`; `refinement` multiplies the number
    of time steps. The step is an equal part of the time between frames, with Courant number ≤ 0.9 at 2√(g h), the
    speed at which the highest water would run onto dry ground. It does not depend on the trajectory, so that none
    depends on which others are solved with it. PyClaw instead takes steps of Courant number 0.9 at the actual
    speeds, cut at the frames: the same single step a frame up to resolution 128, longer ones beyond.

    Limits: second order for plane waves, but each step's two sweeps do not commute, which in two dimensions leaves
    an error of first order in the step; Roe's averages do not keep water from running dry, and an
    outer height below about a hundredth of the inner one may end in NaN.
    """

    gravity: float = field(default=1.0, validator=gt(0.0))
    inner_height: float = field(default=2.0, validator=gt(0.0))
    outer_height: float = field(default=1.0, validator=gt(0.0))
    smallest_radius: float = 0.3
    largest_radius: float = 0.7
    resolution: int = field(default=64, validator=ge(_GHOST_CELLS))
    frame_count: int = field(default=101, validator=ge(2))
    duration: float = field(default=1.0, validator=gt(0.0))
    refinement: int = field(default=1, validator=ge(1))
    device: torch.device = field(factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32

    def initial(self, generator: torch.Generator) -> Tensor:
        """Water at rest behind a circular dam of random radius, (3, X, Y) float64."""
        drawn = torch.rand((), generator=generator, dtype=torch.float64).item()
        return self.dam(self.smallest_radius + (self.largest_radius - self.smallest_radius) * drawn)

    def dam(self, radius: float) -> Tensor:
        """Water at rest: inner_height in the cells whose centre is within `radius` of the middle, (3, X, Y)."""
        spacing = SIDE / self.resolution
        centres = spacing * (torch.arange(self.resolution, dtype=torch.float64) + 0.5) - SIDE / 2
        inside = torch.hypot(centres[:, None], centres[None, :]) <= radius
        state = torch.zeros(3, self.resolution, self.resolution, dtype=torch.float64)
        state[0] = self.outer_height
        state[0][inside] = self.inner_height
        return state

    def frames(self, initial: Tensor) -> Iterator[Tensor]:
        """Yield the height (n, 1, X, Y) of every frame, the first at t = 0, from states (n, 3, X, Y)."""
        for state in self.states(initial):
            yield state[:, :1]

    def states(self, initial: Tensor) -> Iterator[Tensor]:
        """Yield the state (n, 3, X, Y) of every frame, the first at t = 0."""
        state = initial.to(self.device, self.dtype)
        yield state
        steps = self.steps_per_frame
        ratio = self.duration / (self.frame_count - 1) / steps / (SIDE / self.resolution)
        for _ in range(self.frame_count - 1):
            for _ in range(steps):
                state = _turned(sweep(_turned(state), ratio, self.gravity))
                state = sweep(state, ratio, self.gravity)
            yield state

    @property
    def steps_per_frame(self) -> int:
        """Time steps between two frames."""
        fastest = 2.0 * math.sqrt(self.gravity * max(self.inner_height, self.outer_height))
        interval = self.duration / (self.frame_count - 1)
        return self.refinement * math.ceil(interval * fastest / (SIDE / self.resolution) / _COURANT)


def _turned(state: Tensor) -> Tensor:
    """Exchange X and Y, and with them the order of the momenta."""
    return state.mT[:, [0, 2, 1]]


def sweep(state: Tensor, ratio: float, gravity: float) -> Tensor:
    """One step of length ratio · Δ along the last axis, for states whose momenta are (across, along).

    Godunov's method with high-resolution corrections (chapters 6 and 15). The ends are open: the last cell's state
    goes on beyond them.
    """
    cells = pad(state, (_GHOST_CELLS, _GHOST_CELLS, 0, 0), mode="replicate")
    left, right = cells[..., :-1], cells[..., 1:]
    waves, speeds = _roe(left, right, gravity)
    leftward = _leftward_speeds(left, right, waves, speeds, gravity)
    to_left = (leftward[:, :, None] * waves).sum(1)
    to_right = ((speeds - leftward)[:, :, None] * waves).sum(1)

    size = speeds[..., 1:-1].abs()
    correction = (0.5 * size * (1.0 - ratio * size))[:, :, None] * _limited(waves, speeds)
    flux = correction.sum(1)
    change = to_right[..., 1:-2] + to_left[..., 2:-1] + flux[..., 1:] - flux[..., :-1]
    return state - ratio * change


def _roe(left: Tensor, right: Tensor, gravity: float) -> tuple[Tensor, Tensor]:
    """Waves and speeds of the linear Riemann problem with Roe's averages (chapter 15)."""
    root_l, root_r = left[:, 0].sqrt(), right[:, 0].sqrt()
    mean = (left[:, 1:] / root_l[:, None] + right[:, 1:] / root_r[:, None]) / (root_l + root_r)[:, None]
    v, u = mean.unbind(1)
    c = (0.5 * gravity * (left[:, 0] + right[:, 0])).sqrt()
    depth, across, along = (right - left).unbind(1)

    half = 0.5 / c
    first = half * ((u + c) * depth - along)
    third = half * ((c - u) * depth + along)
    zero = torch.zeros_like(u)
    waves = torch.stack(
        [first, first * v, first * (u - c), zero, across - v * depth, zero, third, third * v, third * (u + c)], 1
    )
    return waves.reshape(-1, 3, 3, *waves.shape[2:]), torch.stack([u - c, u, u + c], 1)


def _leftward_speeds(left: Tensor, right: Tensor, waves: Tensor, speeds: Tensor, gravity: float) -> Tensor:
    """The part of each speed that goes to the left: min(s, 0), but a share of s in a rarefaction through u = ±c.

    Without this entropy fix (Harten and Hyman; chapter 15) such a rarefaction would remain a jump.
    """
    slow = _characteristic(torch.stack([left, left + waves[:, 0]]), -1.0, gravity)
    fast = _characteristic(torch.stack([right - waves[:, 2], right]), 1.0, gravity)
    begin, end = torch.stack([slow, fast], 2)
    roe = speeds[:, ::2]
    # Where begin = end, or a state between the waves would be dry, the quotient is not finite, and not taken.
    share = torch.where((begin < 0.0) & (end > 0.0), begin * (end - roe) / (end - begin), roe.clamp(max=0.0))
    return torch.stack([share[:, 0], speeds[:, 1].clamp(max=0.0), share[:, 1]], 1)


def _characteristic(state: Tensor, side: float, gravity: float) -> Tensor:
    """u ± c of states (..., 3, across, interfaces)."""
    depth, along = state[..., 0, :, :], state[..., 2, :, :]
    return along / depth + side * (gravity * depth).sqrt()


def _limited(waves: Tensor, speeds: Tensor) -> Tensor:
    """The waves of all but the outermost interfaces, limited by the upwind wave of their family (MC; chapter 6)."""
    inner = waves[..., 1:-1]
    products = (waves[..., 1:] * waves[..., :-1]).sum(2)
    upwind = torch.where(speeds[..., 1:-1] > 0.0, products[..., :-1], products[..., 1:])
    # Where there is no wave, there is nothing to limit: 0 / tiny is 0.
    smoothness = upwind / inner.square().sum(2).clamp(min=torch.finfo(waves.dtype).tiny)
    limiter = torch.minimum(0.5 + 0.5 * smoothness, 2.0 * smoothness).clamp(0.0, 2.0)
    return limiter[:, :, None] * inner
