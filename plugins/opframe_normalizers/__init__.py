"""Normalizers: what the channels of a dataset are brought to before a model sees them, each by numbers of its own."""

from __future__ import annotations

from typing import ClassVar, Literal, final

from attrs import field, frozen

from opframe_registry import Component, Metadata, Normalization, Normalizer, hookimpl


@final
@frozen(kw_only=True)
class Unchanged(Normalizer):
    """Data as they are, in their own units."""

    name: ClassVar[str] = "none"
    changes: ClassVar[bool] = False

    def build(self, metadata: Metadata) -> Normalization:
        """Make what leaves frames as they are."""
        from opframe_normalizers.live import AsTheyAre

        return AsTheyAre()


@final
@frozen(kw_only=True)
class MeanAndDeviation(Normalizer):
    """Each channel has mean 0 and deviation 1 over the training data of its dataset.

    A channel that is constant up to rounding is only shifted.
    """

    name: ClassVar[str] = "dataset"

    def build(self, metadata: Metadata) -> Normalization:
        """Make the normalization of one dataset, which has learnt nothing yet."""
        from opframe_normalizers.live import Linear, ToDeviation

        return Linear(metadata, ToDeviation())


@final
@frozen(kw_only=True)
class RootMeanSquare(Normalizer):
    """Each channel has root mean square 1 over the training data of its dataset; zero stays zero.

    A channel that is zero everywhere is left as it is.
    """

    name: ClassVar[str] = "rms"

    def build(self, metadata: Metadata) -> Normalization:
        """Make the normalization of one dataset, which has learnt nothing yet."""
        from opframe_normalizers.live import Linear, ToRootMeanSquare

        return Linear(metadata, ToRootMeanSquare())


@final
@frozen(kw_only=True)
class Range(Normalizer):
    """Each channel lies within -1 and 1, or 0 and 1, over the training data of its dataset.

    A channel that is constant up to rounding is only shifted: to the middle of the range, or to 0.
    """

    name: ClassVar[str] = "min_max"
    lowest: Literal[-1, 0] = field(
        default=-1, metadata={"help": "what the smallest value of a channel becomes; the largest becomes 1"}
    )

    def build(self, metadata: Metadata) -> Normalization:
        """Make the normalization of one dataset, which has learnt nothing yet."""
        from opframe_normalizers.live import Linear, ToRange

        return Linear(metadata, ToRange(self.lowest))


@hookimpl
def opframe_components() -> list[type[Component]]:
    """The components of this plugin."""
    return [Unchanged, MeanAndDeviation, RootMeanSquare, Range]
