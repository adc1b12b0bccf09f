"""The contract between opframe and its plugins: the kinds of components. `values.py` has what they exchange.

A component is a final, frozen, keyword-only attrs class. Its fields are its keys in TOML, `name` is the
value of `type`, its base class is its kind, the first line of its docstring is its help and `build` makes
the live object. Nothing here imports torch, so that plugins can be listed in an instant.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import attrs
from attrs import Attribute, field, frozen
from attrs.validators import deep_iterable, ge, gt, lt, optional

from opframe_registry.identity import SELECTS, UNCHANGED, Identity, Stamp, locations, meaning
from opframe_registry.values import Adapted, Batch, Change, Fields, Order, Population, Progress, Split, Trajectories

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@frozen(kw_only=True)
class Component(ABC):  # noqa: B024 - each kind has its own build
    """Base of all kinds. Plugins derive from a kind, never from this."""

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Settings by the value of the key `size`; single keys override them."""


@frozen(kw_only=True)
class Dataset(Component):
    """A set of trajectories of one equation, split into training and test.

    A field changes the numbers that are read, unless its metadata say otherwise: `changes_numbers = False` leaves every
    trajectory as it is, and with `selects = True` it says which of them, or of their frames, are used.
    """

    kind: ClassVar[str] = "dataset"
    revision: ClassVar[int] = 1
    """Raised when `prepare` comes to make other numbers from the same settings, so that old ones are not used."""
    label: str = field(default="", metadata={"help": "name in tables and figures (default: the type)", **UNCHANGED})
    weight: float = field(
        default=1.0,
        validator=[gt(0.0), lt(inf)],
        metadata={"help": "relative weight in balanced sampling", **UNCHANGED},
    )
    train: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "training trajectories used (default: all)", **SELECTS},
    )
    test: int | None = field(
        default=None, validator=optional(gt(0)), metadata={"help": "test trajectories used (default: all)", **SELECTS}
    )
    exclude: tuple[int, ...] = field(
        default=(),
        validator=deep_iterable(ge(0)),
        metadata={
            "help": "training trajectories left out, by the numbers that `opframe data check` gives",
            **SELECTS,
        },
    )
    stride: int = field(default=1, validator=gt(0), metadata={"help": "use every n-th frame", **SELECTS})
    rollout: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "frames predicted in evaluation (default: all after the history)", **UNCHANGED},
    )

    @property
    def title(self) -> str:
        """The name in tables, figures and messages."""
        return self.label or self.name

    def identity(
        self, stamps: Callable[[str], Mapping[str, Stamp]] | None = None, splits: Sequence[Split] = get_args(Split)
    ) -> Identity:
        """What the numbers depend on. `stamps` gives those of all files below a path or URL; None: files do not count.

        A `{split}` in a path stands for each of the `splits`.
        """
        values = attrs.asdict(self)
        said = {name: meaning(type(self), name) for name in values}
        urls = {url.replace("{split}", split): None for url in locations(self) for split in splits}
        return Identity(
            type=self.name,
            revision=self.revision,
            numbers={name: value for name, value in values.items() if said[name].get("changes_numbers", True)},
            selection={name: value for name, value in values.items() if said[name].get("selects", False)},
            files={file: stamp for url in urls for file, stamp in (stamps(url) if stamps else {}).items()},
        )

    def prepare(self, cache: Path, progress: Progress) -> None:
        """Make what `build` needs (solve, download) under `cache`, once. Called in one process only."""

    @abstractmethod
    def build(self, split: Split, cache: Path) -> Trajectories:
        """Open one split. Raises DataError."""

    @classmethod
    def recognise(
        cls, url: str, contents: Mapping[str, tuple[int, ...]]
    ) -> Mapping[str, Any] | Sequence[Mapping[str, Any]] | None:
        """The settings with which this component reads what lies at a path or URL; None: it is another layout.

        A mapping says that the names of the arrays leave no doubt. Where only their shapes speak for it, a sequence
        has the settings of every reading that fits, and a person is asked which one is right.

        `contents` are the shapes of the first arrays found there: of a file, by their paths inside; of a folder, by
        `file:path`, where `file` is relative to the folder.
        """
        return None


@frozen(kw_only=True, eq=False)
class Published:
    """What a backbone makes of a checkpoint file of its authors.

    `weights` are named and shaped as those of the network that `backbone.build(fields)` makes, `mapped` says
    for each tensor of the file what became of it, and `assumed` what the file does not say and was taken for granted.
    """

    backbone: Backbone
    fields: Fields
    weights: Mapping[str, Tensor]
    mapped: Mapping[str, str]
    assumed: Mapping[str, str] = field(factory=dict)


def _is_preset(component: Component, _: Attribute[str | None], size: str | None) -> None:
    if size is not None and size not in component.presets:
        raise ValueError(f"size = {size!r} is not a preset; presets: {', '.join(component.presets) or 'none'}")


@frozen(kw_only=True)
class Backbone(Component):
    """A network that maps (B, T, C, *grid) to a Prediction.

    `build` obeys `normalize`, or raises ConfigError where the network has no such option. The network may be given
    other grids than the one it is built for, and raises ConfigError for those it does not take.
    """

    kind: ClassVar[str] = "backbone"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Parts of the network by name, as glob patterns of the names in its state dict. Together they are the whole."""
    size: str | None = field(
        default=None,
        validator=_is_preset,
        metadata={"help": "preset that fills the other keys; all of them override"},
    )
    normalize: bool = field(default=False, metadata={"help": "normalise every sample and restore its scale at the end"})

    @abstractmethod
    def build(self, fields: Fields) -> nn.Module:
        """Make the network with fresh weights. Raises ConfigError where the fields do not fit it."""

    def idle(self) -> int:
        """Parameters that take no part in the prediction of one sample, such as experts that are not chosen."""
        return 0

    def adapt(self, change: Change) -> Adapted | None:
        """Make a weight of a trained network fit this one. None: it cannot be used.

        Without more knowledge, a weight of the same shape is taken as it is, and one that differs only in axes of
        length 1 at the end, as 1x1 convolutions in two and in three dimensions do, is reshaped.
        """
        weight, fresh = change.weight, change.fresh
        if weight.shape == fresh.shape:
            return Adapted(weight=weight)
        common = min(weight.ndim, fresh.ndim)
        rest = {*weight.shape[common:], *fresh.shape[common:]}
        if weight.shape[:common] == fresh.shape[:common] and rest == {1}:
            return Adapted(weight=weight.reshape(fresh.shape), how=f"{weight.ndim} axes to {fresh.ndim}")
        return None

    @classmethod
    def from_published(cls, arguments: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Published | None:
        """Read a checkpoint of this architecture's authors: its constructor arguments and its state dict.

        None: the file is not of this architecture. The shapes decide where the arguments are silent.
        """
        return None


LossFunction = Callable[["nn.Module", Batch], "Mapping[str, Tensor]"]
"""Named scalar losses of a batch; training minimises their sum."""


@frozen(kw_only=True)
class Objective(Component):
    """What training minimises."""

    kind: ClassVar[str] = "objective"
    frames: int = field(default=1, validator=gt(0), metadata={"help": "frames predicted auto-regressively (T_ar)"})

    @abstractmethod
    def build(self, fields: Fields) -> LossFunction:
        """Make the function that is called once a training step."""


@frozen(kw_only=True)
class Sampler(Component):
    """Decides which windows make up each global batch."""

    kind: ClassVar[str] = "sampler"

    @abstractmethod
    def build(self, populations: Sequence[Population]) -> Order:
        """Make the order over the given datasets."""


@frozen(kw_only=True)
class Optimizer(Component):
    """Updates the weights."""

    kind: ClassVar[str] = "optimizer"
    learning_rate: float = field(default=1e-3, validator=[ge(0.0), lt(inf)], metadata={"help": "peak learning rate"})

    @abstractmethod
    def build(self, parameters: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        """Make the torch optimizer over parameter groups in torch's form.

        A group has its own "lr" where the experiment says so; the others take `learning_rate`.
        """


@frozen(kw_only=True)
class Schedule(Component):
    """The learning rate over training."""

    kind: ClassVar[str] = "schedule"

    @abstractmethod
    def build(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the torch scheduler, stepped once after each of `steps` optimizer steps."""


KINDS: tuple[type[Component], ...] = (Dataset, Backbone, Objective, Sampler, Optimizer, Schedule)
