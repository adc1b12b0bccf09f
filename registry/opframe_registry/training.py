"""What takes part in a run beside the network: live loggers, callbacks, normalisations and metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from attrs import frozen

from opframe_registry.metadata import Metadata

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

MetricFunction = Callable[["Tensor", "Tensor", "Tensor", Metadata], "Mapping[str, Tensor]"]
"""A pure function of (prediction, truth, mask, metadata) to named values of every trajectory.

`prediction` and `truth` are (B, T, C, *grid) in the data's own units, on the grid of the model; the first of the C
channels are those of the metadata. `mask` broadcasts against them and is zero where nothing counts, and values there
may be anything. A value is (B,), or (B, T) where it is one of every frame, or NaN where there is nothing to measure.
The engine gathers the values of all processes and averages over those that are not NaN.
"""


@frozen(kw_only=True)
class RunInfo:
    """What a logger is told of the run that it is to record.

    `settings` is the resolved experiment as TOML tables, `step` the step from which the run begins or goes on: what
    was recorded beyond it, before the run was killed, is to be dropped.
    """

    folder: Path
    title: str
    settings: Mapping[str, Any]
    step: int


class RunLogger(Protocol):
    """A logger's live object. Only the leading process has one."""

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Record named numbers of one step; `kind` is train, evaluation or test. Names may differ from call to call."""
        ...

    def image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """Record a picture (height, width, 3)."""
        ...

    def close(self) -> None:
        """Write what is still to be written."""
        ...


class Training(Protocol):
    """What a callback sees of training, and may ask of it. It is the same object at every point."""

    @property
    def step(self) -> int:
        """Optimizer steps that are done."""
        ...

    @property
    def steps(self) -> int:
        """Optimizer steps that are to be done."""
        ...

    @property
    def seed(self) -> int:
        """The seed of the run. Random numbers of a callback come from it and the step, so that they are repeatable."""
        ...

    @property
    def backbone(self) -> nn.Module:
        """The network, with gradients `after_backward`."""
        ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    @property
    def losses(self) -> Mapping[str, Tensor]:
        """The last step's losses, on the device, of this process's share of the batch."""
        ...

    @property
    def rollbacks(self) -> int:
        """How often training has gone back to a checkpoint so far."""
        ...

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all samples of the global batch of what each process knows of its share; all ask for it."""
        ...

    def say(self, words: str) -> None:
        """Say a line to the person, once for all processes. What is said `after_training` is also in the report."""
        ...

    def skip(self, reason: str) -> None:
        """Leave this step out, `after_backward`: no weight changes, nor the optimizer's state; the step counts.

        The windows of its batch are written to `left_out.jsonl` in the run folder. One process suffices.
        """
        ...

    def roll_back(self, reason: str) -> None:
        """After this step, go back to the latest checkpoint, and on from there with the data in another order."""
        ...

    def log(self, values: Mapping[str, float]) -> None:
        """Hand numbers of this step to the loggers. Processes that do not lead may call it, too; nothing happens."""
        ...

    def stop(self, reason: str) -> None:
        """End training after this step as if it were the last one: the run is evaluated and reported."""
        ...

    def interrupt(self, reason: str) -> None:
        """Save after this step and end, as after Ctrl-C: the run goes on with --resume."""
        ...


POINTS: Mapping[str, str] = {
    "before_training": "once, before the first step, after a resumed state is loaded",
    "before_step": "before the batch of a step is computed",
    "after_backward": "when all gradients are there, before they are clipped and used",
    "after_step": "when the weights have changed",
    "before_evaluation": "before validation trajectories are rolled out",
    "after_evaluation": "with the scores, by name, as a second argument",
    "after_training": "once, after the last step, also where training was stopped or interrupted",
}
"""The points of training at which a callback may have a method, and when each comes.

A method takes the `Training`; that of `after_evaluation` also a mapping from names to scores, of which `selected` is
the one that checkpoints are chosen by, lower being better. All processes come to every point in the same order.
A callback may also have `state_dict()` and `load_state_dict(state)`. Its state is saved with every checkpoint, after
all points of the step but `after_training`, and loaded before the first point: numbers, words, tensors (which come back
in main memory), and lists, tuples and mappings of them. It is that of the leading process, for all processes, which all
are asked for it. Where it has the key `weights`, a mapping from the names of parameters to tensors, these are what is
taken of the checkpoint when its weights are exported, in place of the parameters themselves.
"""


class Normalization(Protocol):
    """A normalizer's live object, for one dataset: what its channels are brought to before a model sees them.

    Frames are (..., C, *grid) tensors on any device, with the dataset's own channels and as many grid axes as its
    metadata have. It pickles: loader threads have copies.
    """

    def fit(self, frames: Iterable[Tensor]) -> None:
        """Learn from training data in pieces (T, C, *grid), NaN where a value is missing.

        They may be iterated over more than once. Raises DataError where nothing can be learnt of them.
        """
        ...

    def apply(self, frames: Tensor) -> Tensor:
        """From the dataset's units to those of the model; may change `frames` in place and return it."""
        ...

    def restore(self, frames: Tensor) -> Tensor:
        """The inverse of `apply`, as a new tensor, with a gradient."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]:
        """What was learnt: a few small arrays of real numbers by name, which is kept with weights and in the cache."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take what was learnt before. Raises ValueError where it does not fit."""
        ...


@runtime_checkable
class MergeableNormalization(Normalization, Protocol):
    """One that can learn of terabytes: several machines look at a part of the data each (`--shard`, `--dask`)."""

    def summary(self, frames: Iterable[Tensor]) -> Mapping[str, Tensor]:
        """What some of the pieces say that `fit` would get: a few small arrays of real numbers, also of no piece."""
        ...

    def fit_summaries(self, summaries: Iterable[Mapping[str, Tensor]]) -> None:
        """Learn from the summaries of all pieces what `fit` learns from the pieces, but for rounding.

        Raises DataError as `fit` does.
        """
        ...
