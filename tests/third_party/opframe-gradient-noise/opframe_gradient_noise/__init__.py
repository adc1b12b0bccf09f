"""Annealed gradient noise for opframe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

from attrs import field, frozen
from attrs.validators import ge, gt

from opframe_registry import Callback, Component, hookimpl


@final
@frozen(kw_only=True)
class GradientNoise(Callback):
    """Adds Gaussian noise to every gradient, less from step to step (Neelakantan et al., 2015).

    Its variance at the t-th step with noise, from 0 on, is η / (1 + t)^γ (arXiv 1511.06807).
    """

    name: ClassVar[str] = "gradient_noise"
    eta: float = field(default=0.01, validator=ge(0.0), metadata={"help": "η, the variance at first"})
    gamma: float = field(default=0.55, validator=ge(0.0), metadata={"help": "γ, how fast it falls"})
    log_every: int = field(default=10, validator=gt(0), metadata={"help": "steps between entries of its deviation"})

    def build(self) -> object:
        """Make what adds the noise."""
        from opframe_gradient_noise.noise import Noise

        return Noise(self)


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    return [GradientNoise]
