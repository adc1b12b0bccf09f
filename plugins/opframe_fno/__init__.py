"""FNO, the Fourier neural operator (Li et al., ICLR 2021, arXiv 2010.08895), as DPOT and MoE-POT compare with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, final

from attrs import field, frozen
from attrs.validators import deep_iterable, ge, gt, min_len

from opframe.layers.checks import check_classes, check_groups, in_words
from opframe_registry import Adapted, Backbone, Change, Component, ConfigError, Fields, Published, hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn

NORM_GROUPS = 4
"""Channel groups of every GroupNorm."""


def _numbers(value: int | Iterable[int]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


@final
@frozen(kw_only=True)
class FNO(Backbone):
    """Fourier neural operator on a grid of any number of axes (Li et al., 2021).

    The network of the repositories of DPOT (arXiv 2403.03542) and MoE-POT (arXiv 2510.25803), which is 2-D, continued
    to other dimensions. A grid must have room for the modes: weights have one matrix for each, so that fewer would be
    another network.

    `baseline` is the FNO-2d of Li et al.: 0.47 million weights if a complex one counts once, taken to be the 0.5
    million of the papers' tables, and 0.93 million real numbers. MoE-POT also pre-trains FNO-T, S and M, of which it
    tells only that they have 10, 30 and 150 million weights: `tiny`, `small` and `medium` have so many with four
    blocks, the 20 modes of the published settings and a width that is chosen to match. `mini` costs about as much to
    train as the `mini` of DPOT.
    """

    name: ClassVar[str] = "fno"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "embedding": ("patch_embed.*",),
        "blocks": ("spectral_convs.*", "convs.*", "ln_layers.*"),
        "head": ("fc1.*", "fc2.*"),
        "normalization": ("scale_feats.*",),
        "classification": ("cls_head.*",),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mini": {"width": 16, "depth": 4, "modes": [12]},
        "baseline": {"width": 20, "depth": 4, "modes": [12]},
        "tiny": {"width": 40, "depth": 4, "modes": [20]},
        "small": {"width": 68, "depth": 4, "modes": [20]},
        "medium": {"width": 152, "depth": 4, "modes": [20]},
    }

    width: int = field(default=32, validator=gt(0), metadata={"help": "channels of a point; a multiple of 4"})
    depth: int = field(default=4, validator=gt(0), metadata={"help": "number of blocks"})
    modes: tuple[int, ...] = field(
        default=(20,),
        converter=_numbers,
        validator=[min_len(1), deep_iterable(gt(0))],
        metadata={"help": "Fourier modes kept, of either sign; one number for all axes, or one for each"},
    )
    group_norm: bool = field(default=True, metadata={"help": "normalise groups of channels after every block"})
    classes: int = field(
        default=0, validator=ge(0), metadata={"help": "datasets told apart by a classification head; 0: no head"}
    )

    def __attrs_post_init__(self) -> None:
        if self.group_norm:
            check_groups(self.width, NORM_GROUPS, "; or set group_norm to false")

    def modes_along(self, grid: Sequence[int]) -> tuple[int, ...]:
        """The modes kept along every axis. Raises ConfigError where they do not fit the grid."""
        modes = self.modes * len(grid) if len(self.modes) == 1 else self.modes
        given = f"[backbone] modes = {list(self.modes)}"
        if len(modes) != len(grid):
            axes = f"the grid {in_words(grid)} has {len(grid)} axes"
            raise ConfigError(f"{given}, but {axes}; give one number, or one for each")
        *outer, last = grid
        most = [*(points // 2 for points in outer), last // 2 + 1]
        if all(kept <= room for kept, room in zip(modes, most, strict=True)):
            return modes
        advice = f"set modes to [{min(most)}] or at most {most}" if min(most) else "every axis needs two points or more"
        raise ConfigError(f"{given} are too many for the grid {in_words(grid)}; {advice}")

    def build(self, fields: Fields) -> nn.Module:
        """Make an `FNONet`. Raises ConfigError where the modes do not fit the grid, or the classes the datasets."""
        self.modes_along(fields.grid)
        check_classes(self.classes, fields)
        from opframe_fno.network import FNONet

        return FNONet(self, fields)

    def adapt(self, change: Change) -> Adapted | None:
        """Fit a weight to other channels, another history or horizon, other datasets, more or fewer modes."""
        from opframe_fno.adaptation import adapt_fno

        return adapt_fno(self, change)

    @classmethod
    def from_published(cls, arguments: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Published | None:
        """Read a checkpoint of the 2-D FNO of DPOT's or MoE-POT's authors. Raises ConfigError where it cannot."""
        if not {"patch_embed.proj.0.weight", "spectral_convs.0.weights1", "convs.0.weight"} <= weights.keys():
            return None
        from opframe_fno.published import read

        return read(arguments, weights)


@hookimpl
def opframe_components() -> list[type[Component]]:
    """The components of this plugin."""
    return [FNO]
