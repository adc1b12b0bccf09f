"""A quantile normalizer for opframe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, final

from attrs import field, frozen
from attrs.validators import and_, gt, le

from opframe_registry import Component, Metadata, Normalization, Normalizer, hookimpl


@final
@frozen(kw_only=True)
class Quantile(Normalizer):
    """Each channel's quantiles become those of a uniform or a normal distribution, along straight pieces.

    Quantiles nearer than a hundredth of the channel's deviation are one, so that values which come often are no step.
    Beyond the least and the greatest value the outermost pieces go on. A constant channel becomes 0.
    """

    name: ClassVar[str] = "quantile"
    pieces: int = field(default=256, validator=gt(1), metadata={"help": "straight pieces of the map"})
    to: Literal["uniform", "normal"] = field(
        default="uniform", metadata={"help": "uniform: from -1 to 1; normal: with mean 0 and deviation 1"}
    )
    sample: int = field(
        default=2**18,
        validator=and_(gt(1), le(2**24)),
        metadata={"help": "values of a channel that the quantiles are taken of"},
    )

    def build(self, metadata: Metadata) -> Normalization:
        """Make the normalization of one dataset."""
        from opframe_quantile.map import QuantileMap

        return QuantileMap(self, metadata)


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    return [Quantile]
