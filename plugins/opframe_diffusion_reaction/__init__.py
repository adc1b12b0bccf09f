"""FitzHugh–Nagumo diffusion–reaction in two dimensions, solved on first use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, final

from attrs import field, frozen
from attrs.validators import ge, gt

from opframe.readers.solving import SolvedDataset
from opframe_registry import Component, Metadata, hookimpl

if TYPE_CHECKING:
    import torch

    from opframe.readers.solved import Solver


@final
@frozen(kw_only=True)
class DiffusionReaction(SolvedDataset):
    """FitzHugh–Nagumo diffusion–reaction as in PDEBench, solved on first use.

    u_t = D_u Δu + u − u³ − k − v and v_t = D_v Δv + u − v on (−1, 1)² without flux through the boundary, from white
    noise N(0, 1) in both variables (Takamoto et al., "PDEBench", NeurIPS 2022, 2D diffusion-reaction). The
    published set has 1000 trajectories on 128² cells; the default here is 64² and fewer.

    The semi-discrete equations (five-point finite volumes) are PDEBench's own, integrated by another method.
    Relative L2 differences from trajectories of PDEBench's generator, and of both from a fine solution of the same
    semi-discrete equations (largest of four trajectories):

        t                       0.05     0.1      0.25     0.5      2.5      5
        this from PDEBench's    5.8e-5   3.8e-5   1.4e-5   1.7e-5   3.8e-5   2.6e-5
        PDEBench's from fine    5.8e-5   4.1e-5   2.0e-5   1.6e-5   3.8e-5   2.6e-5
        this from fine          1.3e-7   3.2e-6   1.0e-5   1.3e-6   2.1e-7   2.4e-7

    Over all frames these are at most 1.2e-4, 1.2e-4 and 1.0e-5: what differs is the tolerance of PDEBench's
    adaptive RK45 (rtol 1e-3, atol 1e-6). The same integrator on the right-hand side used here reproduces its
    trajectory to 3e-8, the rounding of the file.
    """

    name: ClassVar[str] = "diffusion_reaction"
    diffusion_u: float = field(default=1e-3, validator=ge(0.0), metadata={"help": "diffusion of the activator"})
    diffusion_v: float = field(default=5e-3, validator=ge(0.0), metadata={"help": "diffusion of the inhibitor"})
    k: float = field(default=5e-3, metadata={"help": "constant k of the activator's reaction u - u^3 - k - v"})
    resolution: int = field(default=64, validator=ge(2), metadata={"help": "cells along each side"})
    frames: int = field(default=101, validator=ge(2), metadata={"help": "frames kept, the initial one included"})
    duration: float = field(default=5.0, validator=gt(0.0), metadata={"help": "time of the last frame"})

    def solver(self, device: torch.device) -> Solver:
        """What solves them, on a device."""
        from opframe_diffusion_reaction.solver import DiffusionReactionSolver

        return DiffusionReactionSolver(
            diffusion_u=self.diffusion_u,
            diffusion_v=self.diffusion_v,
            k=self.k,
            resolution=self.resolution,
            frame_count=self.frames,
            duration=self.duration,
            device=device,
        )

    def metadata(self, trajectories: int) -> Metadata:
        """What so many trajectories are."""
        channels = ("activator", "inhibitor")
        return Metadata(
            trajectories=trajectories,
            frames=self.frames,
            grid=(self.resolution, self.resolution),
            channels=channels,
            predicted=channels,
            boundary="no flux",
            time_step=self.duration / (self.frames - 1),
            source="solved by opframe_diffusion_reaction; equation of PDEBench (Takamoto et al., 2022)",
            license="computed by opframe, no restrictions",
            spacing=(2 / self.resolution,) * 2,  # of (−1, 1)²
            parameters={"Du": (self.diffusion_u,), "Dv": (self.diffusion_v,), "k": (self.k,)},
        )


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    return [DiffusionReaction]
