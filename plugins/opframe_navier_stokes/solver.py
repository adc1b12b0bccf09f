"""Pseudo-spectral solver of the forced two-dimensional Navier–Stokes equation in vorticity form.

Equation, on the unit torus (Li et al., 2021, "Fourier Neural Operator", section 5.3 and appendix A.3.3):

    ∂w/∂t + u·∇w = νΔw + f,    ∇·u = 0,    w = ∂v/∂x − ∂u/∂y,    f = 0.1 (sin 2π(x + y) + cos 2π(x + y))

Initial vorticity: a Gaussian random field of zero mean and covariance 7³ (−Δ + 49)^(−5/2), RMS 0.185 on 64². That
is what the publisher's generator has drawn since June 2022; before, the same code with an older PyTorch gave the real
and the imaginary part of each coefficient the whole variance, so that files from 2020 should have an RMS of 0.262.

Space: Fourier modes up to (N − 1)//3 in each direction (the ⅔ rule: products of solved modes are not aliased); the
others are zero from the beginning. So mean, energy and enstrophy are kept where viscosity and forcing are absent.
Advection is taken in the form of Basdevant (1983), which needs four real transforms instead of five:

    u·∇w = (∂xx − ∂yy)(uv) − ∂x∂y(u² − v²)

Time: the classical fourth-order Runge–Kutta scheme in the variable exp(−νΔt) w (Lawson, 1967), so that viscosity is
exact and limits no step. Advection does: a step h is stable while h · 2π(N/3) · max(|u| + |v|) < 2.8. From these
initial fields max(|u| + |v|) was at most 0.75 in 60 units of time at ν = 1e-4 (0.39 at ν = 1e-3; 32 trajectories each).
The default step, 1.6/N or 0.025 on 64², is stable up to 0.86. At equal numbers of transforms this scheme is more
accurate than third-order Runge–Kutta and third-order Adams–Bashforth; fourth-order Adams–Bashforth is as accurate but
needs steps six times shorter to be stable. It costs a quarter of the publisher's scheme written with the same care.

Errors relative to a fine solution on the same grid in float64 (mean relative L2 norm at t = 1, 10, 20):

    time step     ν = 1e-3    1.3e-10   3.9e-11   1.1e-10      ν = 1e-4    9.2e-9    4.1e-8    3.0e-6
    float32       ν = 1e-3    1.9e-6    1.2e-5    2.4e-5       ν = 1e-4    1.0e-6    3.0e-6    1.8e-5

Difference from the publisher's generator (Crank–Nicolson and explicit Euler, step 2e-3, float32) on 64² from the same
initial fields, 4 (ν = 1e-3) and 8 (ν = 1e-4) trajectories, at the same times:

    published     ν = 1e-3    6.3e-5    8.4e-5    3.2e-4       ν = 1e-4    9.2e-4    3.4e-4    3.2e-3

Its causes at ν = 1e-4, found by solving again with the publisher's scheme in float64:
 - first frame: the initial field's modes above 21, which the publisher keeps and which have decayed by t = 10,
   are 9.1e-4 of the 9.2e-4. From a truncated initial field the two schemes differ by 1.2e-4.
 - later frames: the first-order scheme. Alone it differs from ours by 3.2e-4 and 3.4e-3 at t = 10 and 20, at half
   the step by half as much, and extrapolated to step zero by 3.5e-6 and 4.9e-5. Its float32 rounding over 10,000
   steps is another 9.5e-5 and 1.2e-3.
 - chaos plays no part yet: an initial perturbation of 1e-4 has become 1.6e-4 at t = 20.

Limits: 64² resolves ν = 1e-3 (4e-11 from a solution on 192²), but not quite ν = 1e-4: 9e-4, 6e-4 and 1.1e-2 from one
on 192² at t = 1, 10, 20, the publisher's and ours alike. Much smaller viscosities need a finer grid. The
initial vorticity has no mean, and there is no mean flow. A step above the limit ends in infinite values, which
are reported when the data are prepared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import final

import torch
from attrs import frozen
from torch import Tensor

_LENGTH_SCALE = 7.0
_SMOOTHNESS = 2.5


@final
class VorticitySolver:
    """Solves many trajectories together; see the module for equation, scheme and limits.

    `step` is an upper limit (default: 1.6/resolution); the step used divides `time_step`, the time between
    frames. The first frame is at t = `time_step`. `forcing` is the amplitude of f. Works on any device and
    in float32 or float64; random numbers are always drawn on the CPU, in float64.
    """

    def __init__(
        self,
        *,
        viscosity: float,
        resolution: int,
        frames: int,
        time_step: float = 1.0,
        step: float | None = None,
        forcing: float = 0.1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._resolution, self._frames, self._device, self._dtype = resolution, frames, torch.device(device), dtype
        longest = 1.6 / resolution if step is None else step
        self.steps = max(1, math.ceil(time_step / longest * (1 - 1e-9)))
        """Steps between two frames."""
        self._step = time_step / self.steps
        self._viscosity, self._forcing = viscosity, forcing

    @cached_property
    def _operators(self) -> _Operators:
        return _operators(self._resolution, self._viscosity, self._forcing, self._step, self._device, self._dtype)

    def initial(self, generator: torch.Generator) -> Tensor:
        """Draw an initial vorticity, shape (1, X, Y), from a generator on the CPU."""
        size = self._resolution
        noise = torch.randn(1, size, size, dtype=torch.float64, generator=generator)
        spectrum = torch.fft.rfft2(noise) * size * _initial_deviation(size)
        field: Tensor = torch.fft.irfft2(spectrum, s=(size, size))
        return field.to(self._device, self._dtype)

    def frames(self, initial: Tensor) -> Iterator[Tensor]:
        """Yield the vorticity of each frame, (n, 1, X, Y), from initial vorticities (n, 1, X, Y)."""
        vorticity = initial[:, 0].to(self._device, self._dtype)
        spectrum = torch.fft.rfft2(vorticity) * self._operators.solved
        stepper = _Stepper(self._operators, self._step, spectrum, vorticity)
        for _ in range(self._frames):
            for _ in range(self.steps):
                stepper.advance(spectrum)
            yield torch.fft.irfft2(spectrum, s=vorticity.shape[1:])[:, None]


@frozen(kw_only=True, eq=False)
class _Operators:
    """Fourier multipliers on the half plane K = (X, Y//2 + 1); zero outside the solved modes."""

    solved: Tensor  # (K): 1 where a mode is solved
    velocity: Tensor  # (2, 1, K): u and v from w
    advection: Tensor  # (2, K): −u·∇w from u² − v² and uv
    half_decay: Tensor  # (K): viscosity over half a step
    forcing: Tensor  # (K): the transform of f


def _operators(
    size: int, viscosity: float, amplitude: float, step: float, device: torch.device, dtype: torch.dtype
) -> _Operators:
    """The multipliers, computed in float64 and rounded once."""
    along_x, along_y = _wavenumbers(size)
    highest = 2 * math.pi * ((size - 1) // 3 + 0.5)
    solved = ((along_x.abs() < highest) & (along_y < highest)).double()
    squared = along_x**2 + along_y**2
    to_stream = torch.where(squared > 0, 1 / squared, 0.0) * solved
    phase = 2 * math.pi * torch.arange(size, dtype=torch.float64) / size
    diagonal = phase[:, None] + phase
    forcing = torch.fft.rfft2(amplitude * (torch.sin(diagonal) + torch.cos(diagonal))) * solved
    # Complex also where they are real: torch would convert them again at each product.
    complex_type = torch.complex64 if dtype == torch.float32 else torch.complex128
    return _Operators(
        solved=solved.to(device, complex_type),
        velocity=torch.stack([1j * along_y * to_stream, -1j * along_x * to_stream])[:, None].to(device, complex_type),
        advection=torch.stack([-along_x * along_y, along_x**2 - along_y**2]).mul(solved).to(device, complex_type),
        half_decay=(torch.exp(-viscosity * squared * step / 2) * solved).to(device, complex_type),
        forcing=forcing.to(device, complex_type),
    )


def _wavenumbers(size: int) -> tuple[Tensor, Tensor]:
    """2π times the integer wavenumbers in x, (X, 1), and in y, (Y//2 + 1), in float64."""
    along_x = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)[:, None]
    along_y = torch.arange(size // 2 + 1, dtype=torch.float64)
    return 2 * math.pi * along_x, 2 * math.pi * along_y


def _initial_deviation(size: int) -> Tensor:
    """Standard deviation of the initial field's Fourier coefficients (covariance 7³ (−Δ + 49)^(−5/2))."""
    along_x, along_y = _wavenumbers(size)
    variance = _LENGTH_SCALE**3 * (along_x**2 + along_y**2 + _LENGTH_SCALE**2) ** -_SMOOTHNESS
    variance[0, 0] = 0.0
    return variance.sqrt()


class _Stepper:
    """Advances a batch by one step, in place, in memory that is allocated once.

    Legend: w spectrum of the vorticity, h step, N(w) its rate of change without viscosity, E exp(νΔh/2);
    p the state without stage contributions at mid-step, a b c the states of stages two to four (c before its decay).
    """

    def __init__(self, operators: _Operators, step: float, spectrum: Tensor, vorticity: Tensor) -> None:
        self._operators, self._h = operators, step
        self._grid = vorticity.shape[1:]
        self._velocity = torch.empty((2, *spectrum.shape), dtype=spectrum.dtype, device=spectrum.device)
        self._products = torch.empty((2, *vorticity.shape), dtype=vorticity.dtype, device=vorticity.device)
        self._stages = tuple(torch.empty_like(spectrum) for _ in range(5))

    def advance(self, w: Tensor) -> None:
        """Replace w (n, K) by its value one step later: w' = E (a + 2b + c − p)/3 + h/6 N(Ec)."""
        h, decay = self._h, self._operators.half_decay
        a, b, c, p, rate = self._stages
        self._rate(w, out=rate)
        torch.mul(w, decay, out=p)
        torch.add(w, rate, alpha=h / 2, out=a).mul_(decay)
        self._rate(a, out=rate)
        torch.add(p, rate, alpha=h / 2, out=b)
        self._rate(b, out=rate)
        torch.add(p, rate, alpha=h, out=c)
        a.add_(b, alpha=2).add_(c).sub_(p)
        self._rate(c.mul_(decay), out=rate)
        torch.mul(a, decay, out=w).mul_(1 / 3).add_(rate, alpha=h / 6)

    def _rate(self, w: Tensor, out: Tensor) -> None:
        """Advection and forcing of a spectrum (n, K)."""
        torch.mul(self._operators.velocity, w, out=self._velocity)
        u, v = torch.fft.irfft2(self._velocity, s=self._grid)
        torch.mul(u, u, out=self._products[0]).addcmul_(v, v, value=-1)
        torch.mul(u, v, out=self._products[1])
        difference, product = torch.fft.rfft2(self._products)
        torch.addcmul(self._operators.forcing, self._operators.advection[0], difference, out=out)
        out.addcmul_(self._operators.advection[1], product)
