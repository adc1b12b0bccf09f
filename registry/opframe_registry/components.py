"""The contract between opframe and its plugins: the kinds of components. `values.py` has what they exchange.

A component is a final, frozen, keyword-only attrs class. Its fields are its keys in TOML, `name` is the
value of `type`, its base class is its kind, the first line of its docstring is its help and `build` makes
the live object. Nothing here imports torch, so that plugins can be listed in an instant.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs
from attrs import field, frozen
from attrs.validators import deep_iterable, ge, gt, lt, optional

from opframe_registry.backbone import Backbone
from opframe_registry.component import Component
from opframe_registry.identity import SELECTS, UNCHANGED, Identity, Stamp, changes, in_place, locations, selects
from opframe_registry.metadata import Metadata
from opframe_registry.training import MetricFunction, Normalization, RunInfo, RunLogger
from opframe_registry.values import Batch, Fields, Order, Population, Progress, Split, Trajectories

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@frozen(kw_only=True)
class Dataset(Component):
    """A set of trajectories of one equation, split into training, validation and test.

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
    validation: int | None = field(
        default=None,
        validator=optional(ge(0)),
        metadata={
            "help": "validation trajectories used, 0 for none; held out of those for training where the data have no "
            "validation split (default: what data.validation says)",
            **SELECTS,
            "later": True,
        },
    )
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
        self, stamps: Callable[[str], Mapping[str, Stamp]] | None = None, splits: Sequence[Split] | None = None
    ) -> Identity:
        """What the numbers depend on. `stamps` gives those of all files below a path or URL; None: files do not count.

        A `{split}` in a path stands for each of the `splits` (default: all that there are), for validation data for
        `validation` and `valid`.
        """
        named = list(locations(self))
        if splits is None:  # asking may mean looking for files
            splits = self.splits() if any("{split}" in url for url in named) else ("train",)
        values = attrs.asdict(self)
        urls = {place: None for url in named for split in splits for place in in_place(url, split)}
        return Identity(
            type=self.name,
            revision=self.revision,
            numbers={name: value for name, value in values.items() if changes(type(self), name, value)},
            selection={name: value for name, value in values.items() if selects(type(self), name, value)},
            files={file: stamp for url in urls for file, stamp in (stamps(url) if stamps else {}).items()},
        )

    def splits(self) -> tuple[Split, ...]:
        """The splits that the data come with. Where they have no validation split, the engine holds out training data.

        `build` is called for these alone. What is trained on, or is the test split, is not the validation split as
        well. Called after `prepare`, or where `build` does without it. Raises DataError where files have to be asked,
        and cannot be.
        """
        return ("train", "test")

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


LossFunction = Callable[["nn.Module", Batch], "Mapping[str, Tensor]"]
"""Named scalar losses of a batch; training minimises their sum.

A value (B,) is not minimised: it is one of every sample, of which loggers get the mean of each dataset, under its name
followed by the title of the dataset. Such a name best ends in a slash, as `by_dataset/relative_l2/`.
"""


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


@frozen(kw_only=True)
class Normalizer(Component):
    """What the channels of a dataset are brought to before a model sees them, and back."""

    kind: ClassVar[str] = "normalizer"
    changes: ClassVar[bool] = True
    """Whether frames are changed at all; where they are not, nothing is learnt of data and nothing is applied."""

    @abstractmethod
    def build(self, metadata: Metadata) -> Normalization:
        """Make the normalization of one dataset, which has learnt nothing yet.

        Of the metadata only channels, units, vectors and the number of axes of the grid may be used: these are kept
        with weights.
        """


@frozen(kw_only=True)
class Metric(Component):
    """How far a prediction is from the truth, for every trajectory."""

    kind: ClassVar[str] = "metric"
    better: ClassVar[Literal["lower", "higher"]] = "lower"
    """Which of two values of this metric is that of the better prediction."""

    @abstractmethod
    def build(self, fields: Fields) -> MetricFunction:
        """Make the function that is called with the predictions of a batch of trajectories."""


@frozen(kw_only=True)
class Logger(Component):
    """Where the numbers and pictures of a run go."""

    kind: ClassVar[str] = "logger"
    images: ClassVar[bool] = True
    """Whether it takes pictures, which are not drawn where no logger does."""

    @abstractmethod
    def build(self, run: RunInfo) -> RunLogger:
        """Begin, or go on with, the record of a run. Raises RunError where that cannot be."""


@frozen(kw_only=True)
class Callback(Component):
    """What is done at some points of training; see `POINTS`."""

    kind: ClassVar[str] = "callback"
    needs_evaluation: ClassVar[bool] = False
    """Whether it is senseless without evaluations in training."""

    @abstractmethod
    def build(self) -> object:
        """Make the object that has methods for some of the points."""


KINDS: tuple[type[Component], ...] = (
    Dataset,
    Backbone,
    Objective,
    Sampler,
    Optimizer,
    Schedule,
    Normalizer,
    Metric,
    Logger,
    Callback,
)
