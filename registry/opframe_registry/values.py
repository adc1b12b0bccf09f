"""The values that components exchange.

Shapes use one alphabet: B batch, T time, C channel, X Y Z grid; `*grid` is X, Y or X, Y, Z.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NewType, Protocol

from attrs import frozen

from opframe_registry.metadata import Metadata

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Split = Literal["train", "validation", "test"]
"""Training goes by the first, what is selected while training by the second, the final report by the third."""
Location = NewType("Location", str)
"""A path or an fsspec URL in a setting. A relative path is relative to the file it is written in."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how much is done, how much there is)."""


class Trajectories(Protocol):
    """A dataset's live object. Every loader thread reads with its own copy, so it pickles and opens files lazily."""

    @property
    def metadata(self) -> Metadata: ...

    def read(self, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
        """Frames [start, stop) of one trajectory, shape (T, C, *grid). Raises DataError."""
        ...


@frozen(kw_only=True)
class Fields:
    """What data and model agree on.

    `channels` names the slots of the channel axis; a slot that several datasets share carries all
    their names. `history` frames go into a model, `horizon` frames come out of one call. `datasets` names
    what is trained on, in the order of `Conditions.dataset`, for a backbone that tells datasets apart, and `parameters`
    the numbers of their equations, in the order of `Conditions.parameters`.
    """

    channels: tuple[str, ...]
    grid: tuple[int, ...]
    history: int
    horizon: int = 1
    datasets: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)  # for torch.compile, as below
class Conditions:
    """What a model is told of its samples, beside their frames. NaN is 'not known'.

    `parameters` (B, P) are numbers of the equation, named by `Fields.parameters`; `time_step` (B,) between two frames,
    `spacing` (B, axes) of the grid that the model sees, `boundary` (B, axes, 2) the numbers of a `Boundary` for the
    lower and upper side of each axis. `valid` (B or 1, 1, *grid) is false at obstacles, on land, and wherever an input
    frame misses a value in some channel; what is missing is 0 in the inputs. `dataset` (B,) says where a sample comes
    from, -1 where no dataset of training.
    """

    parameters: Tensor
    time_step: Tensor
    spacing: Tensor
    boundary: Tensor
    valid: Tensor
    dataset: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)  # torch.compile traces a dataclass, an attrs class it does not
class Prediction:
    """What a backbone returns.

    `field` is (B, horizon, C, *grid), `penalties` are scalars by name that training may add to its loss, and
    `class_logits` (B, classes) say from which dataset a sample comes, where the backbone has a head for it.
    """

    field: Tensor
    penalties: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    class_logits: Tensor | None = None


@frozen(kw_only=True, eq=False)
class Batch:
    """Training windows of one grid.

    `inputs` (B, history, C, *grid), `targets` (B, frames, C, *grid), `mask` broadcasts against the
    targets and is zero where nothing counts, `conditions` are what a model is told, and `seeds` (B,) is each sample's
    own seed, a function of (seed, step, index in the global batch): random numbers drawn from it do not depend
    on the number of processes or workers. Missing values are 0 in inputs and targets.

    A mask of a single number says that nothing of the batch is missing, in the inputs neither: `complete`, which is
    known without asking the device.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor
    conditions: Conditions
    seeds: Tensor

    @property
    def complete(self) -> bool:
        """Whether no value is missing, so that `conditions.valid` is true everywhere."""
        return self.mask.numel() == 1

    @property
    def dataset(self) -> Tensor:
        """Where each sample comes from, (B,)."""
        return self.conditions.dataset


@frozen(kw_only=True)
class Population:
    """What a sampler knows of a dataset: for each trajectory how many windows begin in it, at least one; its weight."""

    starts: tuple[int, ...]
    weight: float

    @property
    def trajectories(self) -> int:
        """How many there are."""
        return len(self.starts)


@frozen
class Window:
    """One training sample: which dataset, which of its trajectories, at which frame it begins."""

    dataset: int
    trajectory: int
    start: int


class Order(Protocol):
    """The windows of global batch number `step`: a pure function of its arguments.

    It may also have `shares`: what part of all samples each dataset is to have in the long run, which loggers get
    beside what was drawn.
    """

    def __call__(self, seed: int, step: int, size: int) -> Sequence[Window]: ...


@frozen(kw_only=True, eq=False)
class Change:
    """One weight of a trained network, which a backbone is to make fit another network.

    `name` is its name in the state dict, `weight` the trained tensor and `fresh` the one that it is to replace.
    `source` are the fields of the trained network and `target` those of the other, `weights` all weights of the
    trained one by name.
    """

    name: str
    weight: Tensor
    fresh: Tensor
    source: Fields
    target: Fields
    weights: Mapping[str, Tensor]


@frozen(kw_only=True, eq=False)
class Adapted:
    """A weight made to fit another network, and `how` in a few words; no words: taken as it is."""

    weight: Tensor
    how: str = ""
