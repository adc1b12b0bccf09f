"""Two-dimensional FitzHugh–Nagumo diffusion–reaction, many trajectories at a time.

    u_t = D_u Δu + u − u³ − k − v
    v_t = D_v Δv + u − v

on (−1, 1)² without flux through the boundary: u the activator, v the inhibitor. Finite volumes with the five-point
Laplacian on cell centres, the classical Runge–Kutta method of fourth order in time. States are (n, 2, X, Y), (u, v).
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

SIDE: Final = 2.0
"""Length of a side of the domain, (−1, 1)²."""

_LARGEST_START: Final = 5.5
"""|u| in the initial noise up to which the first steps are short enough; 4 of 10⁸ normal numbers exceed it."""

_REACTION_STEP: Final = 0.2
"""Longest step times 3u², the rate at which the cubic term decays."""

_DIFFUSION_STEP: Final = 2.0
"""Longest step times the Laplacian's largest eigenvalue; the Runge–Kutta method is stable up to 2.78."""

_LONGEST_STEP: Final = 0.025
"""Longest step when the noise has decayed; the reaction's rates are then of order one."""


@frozen(kw_only=True)
class DiffusionReactionSolver:
    """Explicit steps whose length grows as the initial noise decays.

    The cubic term alone, u' = −u³, would keep |u| ≤ (2t + u₀⁻²)^(−1/2), which bounds the reaction's stiffness 3u²:
    steps depend on time only, and no trajectory on which others are solved with it. `refinement` multiplies their
    number. Limit: with explicit diffusion the cost grows with resolution⁴ above about 90.
    """

    diffusion_u: float = field(default=1e-3, validator=ge(0.0))
    diffusion_v: float = field(default=5e-3, validator=ge(0.0))
    k: float = 5e-3
    resolution: int = field(default=64, validator=ge(2))
    frame_count: int = field(default=101, validator=ge(2))
    duration: float = field(default=5.0, validator=gt(0.0))
    refinement: int = field(default=1, validator=ge(1))
    device: torch.device = field(factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32

    def initial(self, generator: torch.Generator) -> Tensor:
        """White noise of unit variance in both variables, (2, X, Y) float64."""
        return torch.randn(2, self.resolution, self.resolution, generator=generator, dtype=torch.float64)

    def frames(self, initial: Tensor) -> Iterator[Tensor]:
        """Yield (u, v) of every frame, (n, 2, X, Y), the first at t = 0, from states (n, 2, X, Y)."""
        state = initial.to(self.device, self.dtype)
        yield state
        interval = self.duration / (self.frame_count - 1)
        for frame in range(self.frame_count - 1):
            steps = self.steps_after(frame * interval)
            for _ in range(steps):
                state = self._step(state, interval / steps)
            yield state

    def steps_after(self, time: float) -> int:
        """Time steps from the frame at `time` to the next."""
        decay = 3.0 / (2.0 * time + _LARGEST_START**-2)
        diffusion = 8.0 * max(self.diffusion_u, self.diffusion_v) * (self.resolution / SIDE) ** 2
        longest = min(_LONGEST_STEP, _REACTION_STEP / decay, _DIFFUSION_STEP / max(diffusion, 1e-30))
        return self.refinement * math.ceil(self.duration / (self.frame_count - 1) / longest - 1e-9)

    def _step(self, state: Tensor, length: float) -> Tensor:
        """One step of the classical Runge–Kutta method."""
        first = self._rate(state)
        second = self._rate(state + 0.5 * length * first)
        third = self._rate(state + 0.5 * length * second)
        fourth = self._rate(state + length * third)
        return state + length / 6.0 * (first + 2.0 * (second + third) + fourth)

    def _rate(self, state: Tensor) -> Tensor:
        """The right-hand side."""
        lap = laplacian(state, SIDE / self.resolution)
        u, v = state.unbind(1)
        difference = u - v
        rate_u = difference - u**3 - self.k + self.diffusion_u * lap[:, 0]
        return torch.stack([rate_u, difference + self.diffusion_v * lap[:, 1]], 1)


def laplacian(state: Tensor, spacing: float) -> Tensor:
    """The five-point Laplacian of (n, C, X, Y) cell means, without flux through the boundary."""
    cells = pad(state, (1, 1, 1, 1), mode="replicate")
    around = cells[..., 2:, 1:-1] + cells[..., :-2, 1:-1] + cells[..., 1:-1, 2:] + cells[..., 1:-1, :-2]
    return (around - 4.0 * state) / spacing**2
