"""Built-in plugin: the forced two-dimensional Navier–Stokes data of the Fourier Neural Operator, solved on first use.

```toml
[[datasets]]
type = "navier_stokes"
viscosity = 1e-4
train = 256
```

The data are those of Li et al. (2021), made by a solver of our own that is faster and more accurate in time than
the published generator; `solver.py` has the equation, the scheme, a comparison with the publisher's data and limits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, final

from attrs import field, frozen
from attrs.validators import ge, gt, optional

from opframe.readers.solving import SolvedDataset
from opframe_registry import Dataset, Metadata, hookimpl

if TYPE_CHECKING:
    import torch

    from opframe.readers.solved import Solver


@final
@frozen(kw_only=True)
class NavierStokes(SolvedDataset):
    """Vorticity of forced 2-D Navier–Stokes flow on the unit torus, solved on first use (Li et al., 2021).

    ∂w/∂t + u·∇w = νΔw + 0.1 (sin 2π(x + y) + cos 2π(x + y)) from a Gaussian random field of RMS 0.185. One channel,
    "vorticity", of shape (frames, 1, resolution, resolution); frame i is at t = (i + 1) · time_step. Trajectory i of
    a split is the same however many are solved, on one kind of device. Solved in float32, on a GPU if there is one.

    From the publisher's initial fields, its frames at t = 1, 10, 20 are followed to 6e-5, 8e-5, 3e-4 (ν = 1e-3) and
    9e-4, 3e-4, 3e-3 (ν = 1e-4) in relative L2 norm. At t = 1 and ν = 1e-4 that is the truncation of the initial
    field, later the publisher's first-order scheme; our own error is below 3e-5. What a 64² grid does not resolve
    at ν = 1e-4 is larger, 1e-2 at t = 20.
    """

    name: ClassVar[str] = "navier_stokes"
    viscosity: float = field(default=1e-3, validator=gt(0.0), metadata={"help": "ν; published: 1e-3, 1e-4, 1e-5"})
    resolution: int = field(default=64, validator=ge(8), metadata={"help": "grid points in each direction"})
    frames: int = field(default=20, validator=ge(1), metadata={"help": "frames of a trajectory"})
    time_step: float = field(default=1.0, validator=gt(0.0), metadata={"help": "time between frames"})
    step: float | None = field(
        default=None,
        validator=optional(gt(0.0)),
        metadata={"help": "longest step of the solver (default: 1.6/resolution)"},
    )
    train: int = field(default=64, validator=gt(0), metadata={"help": "training trajectories solved"})

    def solver(self, device: torch.device) -> Solver:
        """What solves them, on a device."""
        from opframe_navier_stokes.solver import VorticitySolver

        return VorticitySolver(
            viscosity=self.viscosity,
            resolution=self.resolution,
            frames=self.frames,
            time_step=self.time_step,
            step=self.step,
            device=device,
        )

    def together(self, device: torch.device) -> int:
        """16 trajectories on 64² stay in a core's cache (the fastest of 4 to 64 measured); a GPU wants more."""
        return 128 if device.type == "cuda" else 16

    def metadata(self, trajectories: int) -> Metadata:
        """What so many trajectories are."""
        return Metadata(
            trajectories=trajectories,
            frames=self.frames,
            grid=(self.resolution, self.resolution),
            channels=("vorticity",),
            predicted=("vorticity",),
            boundary="periodic",
            time_step=self.time_step,
            source=f"solved by opframe, after Li et al. (2021), viscosity {self.viscosity:g}",
            license="computed by opframe, no restrictions",
            spacing=(1 / self.resolution,) * 2,
            parameters={"viscosity": (self.viscosity,)},
            conserved={"circulation": ("vorticity",)},  # the forcing has no mean
        )


@hookimpl
def opframe_components() -> list[type[Dataset]]:
    """The components of this plugin."""
    return [NavierStokes]
