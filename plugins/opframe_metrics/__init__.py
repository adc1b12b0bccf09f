"""How far predictions are from the truth: in size, in scales, in what they conserve, and for how long."""

from __future__ import annotations

from typing import ClassVar, Literal, final

from attrs import field, frozen
from attrs.validators import and_, ge, gt, le

from opframe_registry import Component, Fields, Metric, MetricFunction, hookimpl


@final
@frozen(kw_only=True)
class RelativeL2(Metric):
    """Relative L2 error of each channel, averaged over channels (L2RE; Hao et al., 2024).

    ‖prediction − truth‖₂ / (‖truth‖₂ + 1e-8) of every channel that is predicted, over the points that count. The value
    `relative_l2` is that of each frame, `relative_l2_rollout` that of all predicted frames together.
    """

    name: ClassVar[str] = "relative_l2"

    def build(self, fields: Fields) -> MetricFunction:
        """The function `relative_l2`."""
        from opframe_metrics.errors import relative_l2

        return relative_l2


@final
@frozen(kw_only=True)
class RootMeanSquare(Metric):
    """Root mean square error of each frame in the data's own units, averaged over channels (Takamoto et al., 2022)."""

    name: ClassVar[str] = "rmse"

    def build(self, fields: Fields) -> MetricFunction:
        """The function `rmse`."""
        from opframe_metrics.errors import rmse

        return rmse


@final
@frozen(kw_only=True)
class Normalised(Metric):
    """Root mean square error of each frame over the root mean square of the truth (nRMSE; Takamoto et al., 2022).

    Averaged over channels.
    """

    name: ClassVar[str] = "nrmse"

    def build(self, fields: Fields) -> MetricFunction:
        """The function `nrmse`."""
        from opframe_metrics.errors import nrmse

        return nrmse


@final
@frozen(kw_only=True)
class VarianceScaled(Metric):
    """Root mean square error over the truth's standard deviation in space (VRMSE; Ohana et al., 2024).

    Of each frame and channel, averaged over channels; 1 is as good as the mean. The variance has 1e-7 added.
    """

    name: ClassVar[str] = "vrmse"

    def build(self, fields: Fields) -> MetricFunction:
        """The function `vrmse`."""
        from opframe_metrics.errors import vrmse

        return vrmse


@final
@frozen(kw_only=True)
class Maximum(Metric):
    """Largest absolute error at any point of a frame, in the data's own units, averaged over channels."""

    name: ClassVar[str] = "max_error"

    def build(self, fields: Fields) -> MetricFunction:
        """The function `max_error`."""
        from opframe_metrics.errors import max_error

        return max_error


@final
@frozen(kw_only=True)
class Boundary(Metric):
    """Root mean square error over the outermost points of the grid (bRMSE; Takamoto et al., 2022)."""

    name: ClassVar[str] = "boundary_error"

    def build(self, fields: Fields) -> MetricFunction:
        """The function `boundary_error`."""
        from opframe_metrics.errors import boundary_error

        return boundary_error


@final
@frozen(kw_only=True)
class Fourier(Metric):
    """Root mean square error of each frame in bands of the wavenumber (fRMSE; Takamoto et al., 2022).

    The squares of `fourier_low`, `fourier_mid` and `fourier_high` add up to that of `rmse`, channel by channel.
    Waves are counted over the whole domain, whether it is periodic or not.
    """

    name: ClassVar[str] = "fourier"
    low: int = field(default=4, validator=gt(0), metadata={"help": "the mid band begins at this wavenumber"})
    high: int = field(default=12, validator=gt(0), metadata={"help": "the high band begins at this wavenumber"})

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}")

    def build(self, fields: Fields) -> MetricFunction:
        """A function of both bounds."""
        from opframe_metrics.spectra import Bands

        return Bands(self.low, self.high)


@final
@frozen(kw_only=True)
class Pearson(Metric):
    """Correlation of prediction and truth in space, and for how many frames it is high.

    `correlation` is Pearson's, of each frame, averaged over the channels that are not constant in space; that of a
    prediction that is not finite is 0. `valid_time` counts the frames before the first one below the threshold.
    """

    name: ClassVar[str] = "correlation"
    better: ClassVar[Literal["lower", "higher"]] = "higher"
    threshold: float = field(
        default=0.8,
        validator=and_(ge(-1.0), le(1.0)),
        metadata={"help": "a frame is valid while its correlation is not below this"},
    )

    def build(self, fields: Fields) -> MetricFunction:
        """A function of the threshold."""
        from opframe_metrics.agreement import Correlation

        return Correlation(self.threshold)


@final
@frozen(kw_only=True)
class Conservation(Metric):
    """How far what the equation conserves is off, relative to it: mass, momentum, whatever a dataset declares.

    |Σ (density predicted − true)| / Σ |true density| of each conserved quantity, averaged over them; nothing where a
    dataset declares none.
    """

    name: ClassVar[str] = "conservation"

    def build(self, fields: Fields) -> MetricFunction:
        """The function `conservation`."""
        from opframe_metrics.conservation import conservation

        return conservation


@hookimpl
def opframe_components() -> list[type[Component]]:
    """The components of this plugin."""
    return [
        RelativeL2,
        RootMeanSquare,
        Normalised,
        VarianceScaled,
        Maximum,
        Boundary,
        Fourier,
        Pearson,
        Conservation,
    ]
