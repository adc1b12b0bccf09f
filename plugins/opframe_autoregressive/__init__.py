"""The denoising auto-regressive objective of DPOT (Hao et al., ICML 2024, arXiv 2403.03542)."""

from __future__ import annotations

from typing import ClassVar, final

from attrs import field, frozen
from attrs.validators import ge, optional

from opframe_registry import Component, ConfigError, Fields, LossFunction, Objective, hookimpl

PUBLISHED_NOISE = 5e-4


@final
@frozen(kw_only=True)
class RelativeL2(Objective):
    """Relative L2 error along an auto-regressive roll-out with noisy inputs (Hao et al., 2024).

    Before every step the input window u gets noise, u + noise·‖u‖₂·N(0, 1), the norm for each sample and channel
    over space and time; then `Fields.horizon` frames are predicted and enter the window. Gradients flow through
    the whole roll-out. The errors of the steps are added.

    The loss is the mean over samples, where the published one is the sum over the samples of a device, averaged
    over devices. The mean does not depend on how a batch is split over processes or accumulated. Adam ignores the
    factor, but for what it compares gradients with: the published sum over 20 samples with gradients clipped at 1e4,
    weight decay 1e-6 and epsilon 1e-8 is this mean with 5e2, 5e-8 and 5e-10.
    """

    name: ClassVar[str] = "relative_l2"
    noise: float | None = field(
        default=None,
        validator=optional(ge(0.0)),
        metadata={"help": "noise relative to the norm of the input (default: 5e-4, as published); 0 for none"},
    )
    noise_rms: float | None = field(
        default=None,
        validator=optional(ge(0.0)),
        metadata={"help": "instead of noise: relative to the root mean square, so that it does not grow with the grid"},
    )
    penalty_weight: float = field(
        default=0.1, validator=ge(0.0), metadata={"help": "weight of the backbone's penalties, such as expert balance"}
    )
    classification_weight: float = field(
        default=0.0,
        validator=ge(0.0),
        metadata={"help": "weight of the cross-entropy of a backbone's classification head (published: 0)"},
    )

    def __attrs_post_init__(self) -> None:
        if self.noise is not None and self.noise_rms is not None:
            raise ValueError("noise and noise_rms are two units for one thing; give only one of them")

    def build(self, fields: Fields) -> LossFunction:
        """Make an `AutoregressiveLoss`. Raises ConfigError if `frames` is no multiple of the horizon."""
        if self.frames % fields.horizon:
            below = self.frames - self.frames % fields.horizon
            multiples = " or ".join(str(count) for count in (below, below + fields.horizon) if count)
            raise ConfigError(
                f"[objective] frames = {self.frames} cannot be predicted {fields.horizon} at a time; "
                f"set frames to {multiples}, or change data.horizon"
            )
        from opframe_autoregressive.loss import AutoregressiveLoss

        published = PUBLISHED_NOISE if self.noise is None else self.noise
        return AutoregressiveLoss(
            name=self.name,
            steps=self.frames // fields.horizon,
            noise=published if self.noise_rms is None else self.noise_rms,
            relative_to_rms=self.noise_rms is not None,
            penalty_weight=self.penalty_weight,
            classification_weight=self.classification_weight,
        )


@hookimpl
def opframe_components() -> list[type[Component]]:
    """The components of this plugin."""
    return [RelativeL2]
