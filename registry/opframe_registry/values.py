"""The values that components exchange.

Shapes use one alphabet: B batch, T time, C channel, X Y Z grid; `*grid` is X, Y or X, Y, Z.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NewType, Protocol

from attrs import field, frozen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Split = Literal["train", "test"]
Location = NewType("Location", str)
"""A path or an fsspec URL in a setting. A relative path is relative to the file it is written in."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how much is done, how much there is)."""


@frozen(kw_only=True)
class Metadata:
    """What a set of trajectories is.

    `channels` are all channels in the order in which `read` returns them, `predicted` those that a model
    is to predict (the others are input only), `units` one for each channel, empty where unknown. `time_step` is in
    the equation's own unit of time and `spacing`, for each axis of the grid, in its unit of length. `parameters` are
    numbers of the equation by name: one for all trajectories, or one for each. `split` says how training and test
    data were told apart.
    """

    trajectories: int
    frames: int
    grid: tuple[int, ...]
    channels: tuple[str, ...]
    predicted: tuple[str, ...]
    boundary: str = "unknown"
    time_step: float | None = None
    source: str = ""
    license: str = ""
    units: tuple[str, ...] = ()
    spacing: tuple[float, ...] | None = None
    parameters: Mapping[str, tuple[float, ...]] = field(factory=dict)
    split: str = ""


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
    what is trained on, in the order of `Batch.dataset`, for a backbone that tells datasets apart.
    """

    channels: tuple[str, ...]
    grid: tuple[int, ...]
    history: int
    horizon: int = 1
    datasets: tuple[str, ...] = ()


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
    targets, `dataset` (B,) says where a sample comes from and `seeds` (B,) is each sample's own seed,
    a function of (seed, step, index in the global batch): random numbers drawn from it do not depend
    on the number of processes or workers.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor
    dataset: Tensor
    seeds: Tensor


@frozen(kw_only=True)
class Population:
    """What a sampler knows of a dataset: how many trajectories and window starts, and its weight."""

    trajectories: int
    starts: int
    weight: float


@frozen
class Window:
    """One training sample: which dataset, which of its trajectories, at which frame it begins."""

    dataset: int
    trajectory: int
    start: int


class Order(Protocol):
    """The windows of global batch number `step`: a pure function of its arguments."""

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
