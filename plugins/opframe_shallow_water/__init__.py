"""Radial dam breaks in shallow water, solved on first use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, final

from attrs import Attribute, field, frozen
from attrs.validators import ge, gt

from opframe.readers.solving import SolvedDataset
from opframe_registry import Component, Metadata, hookimpl

if TYPE_CHECKING:
    import torch

    from opframe.readers.solved import Solver


@final
@frozen(kw_only=True)
class RadialDamBreak(SolvedDataset):
    """Shallow water after a circular dam breaks, as in PDEBench, solved on first use.

    The shallow-water equations over a flat bottom on (−2.5, 2.5)² with open boundaries; at t = 0 the water is at
    rest, higher in cells whose centre is within a random radius, uniform in (0.3, 0.7). Only the height is kept
    (Takamoto et al., "PDEBench", NeurIPS 2022, 2D shallow water). The published set has 1000 trajectories on 128²
    cells; the default here is 64² and fewer.

    The scheme is the one PDEBench's generator takes from PyClaw: wave propagation with a Roe solver, entropy fix and
    MC limiter, one sweep along X and one along Y for each frame. From the same radius, the relative L2 difference
    from its trajectories is rounding (largest of four trajectories):

        t                             0        0.01     0.5      1
        float32, as prepared          0        7.1e-9   7.1e-8   1.0e-7
        float64                       0        5.3e-9   1.7e-8   2.4e-8
        float64, two steps a frame    0        1.8e-4   7.3e-4   8.0e-4

    The last row is what the time step matters; the grid matters more: at t = 1 a solution on 64² cells is 1.1e-2
    from one on 256² cells, one on 128² cells 4.8e-3. What is reproduced is PDEBench's data, not the exact solution.
    """

    name: ClassVar[str] = "radial_dam_break"
    gravity: float = field(default=1.0, validator=gt(0.0), metadata={"help": "acceleration of gravity"})
    inner_height: float = field(default=2.0, validator=gt(0.0), metadata={"help": "initial height behind the dam"})
    outer_height: float = field(default=1.0, validator=gt(0.0), metadata={"help": "initial height outside"})
    smallest_radius: float = field(default=0.3, validator=gt(0.0), metadata={"help": "smallest radius of the dam"})
    largest_radius: float = field(default=0.7, metadata={"help": "largest radius of the dam"})
    resolution: int = field(default=64, validator=ge(2), metadata={"help": "cells along each side"})
    frames: int = field(default=101, validator=ge(2), metadata={"help": "frames kept, the initial one included"})
    duration: float = field(default=1.0, validator=gt(0.0), metadata={"help": "time of the last frame"})

    @largest_radius.validator
    def _not_smaller(self, _attribute: Attribute[float], value: float) -> None:
        if value < self.smallest_radius:
            raise ValueError(f"'largest_radius' must be >= smallest_radius ({self.smallest_radius}): {value}")

    def solver(self, device: torch.device) -> Solver:
        """What solves them, on a device."""
        from opframe_shallow_water.solver import ShallowWaterSolver

        return ShallowWaterSolver(
            gravity=self.gravity,
            inner_height=self.inner_height,
            outer_height=self.outer_height,
            smallest_radius=self.smallest_radius,
            largest_radius=self.largest_radius,
            resolution=self.resolution,
            frame_count=self.frames,
            duration=self.duration,
            device=device,
        )

    def metadata(self, trajectories: int) -> Metadata:
        """What so many trajectories are."""
        return Metadata(
            trajectories=trajectories,
            frames=self.frames,
            grid=(self.resolution, self.resolution),
            channels=("height",),
            predicted=("height",),
            boundary="open",
            time_step=self.duration / (self.frames - 1),
            source="solved by opframe_shallow_water; problem of PDEBench (Takamoto et al., 2022)",
            license="computed by opframe, no restrictions",
            spacing=(5 / self.resolution,) * 2,  # of (−2.5, 2.5)²
            parameters={
                "gravity": (self.gravity,),
                "inner_height": (self.inner_height,),
                "outer_height": (self.outer_height,),
            },
        )


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    return [RadialDamBreak]
