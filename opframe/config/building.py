"""Asking a component for its live object. What a plugin does wrong there is said in its name, without a traceback."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from opframe.console import counted
from opframe.processes import is_of_another
from opframe_registry import (
    POINTS,
    Backbone,
    Callback,
    Component,
    Dataset,
    Fields,
    Logger,
    LossFunction,
    MergeableNormalization,
    Metadata,
    Metric,
    MetricFunction,
    Normalization,
    Normalizer,
    Objective,
    OpframeError,
    Optimizer,
    Order,
    PluginError,
    Population,
    Prediction,
    Progress,
    RunInfo,
    RunLogger,
    Sampler,
    Schedule,
    Split,
    Trajectories,
    Window,
    did_you_mean,
)

_CALLS = ("forward", "_call_impl")  # of a torch module


@contextmanager
def blamed(component: Component | type[Component], method: str) -> Iterator[None]:
    """Raises PluginError naming the component for what its method raises, except for what is written for people."""
    try:
        yield
    except WrongPredictionError as error:
        raise _fault(component, method, error) from error
    except OpframeError:
        raise
    except (Exception, SystemExit) as error:
        if is_of_another(error):
            raise
        raise _fault(component, method, error) from error


def _fault(component: Component | type[Component], method: str, error: BaseException) -> PluginError:
    if isinstance(error, WrongPredictionError):
        return PluginError(f"{_named(component)}: {method} {error.words}")
    place = traceback.extract_tb(error.__traceback__)[-1]
    words = f"{type(error).__name__}: {error}".rstrip(": ")
    return PluginError(f"{_named(component)}: {method} raised {words} ({place.filename}, line {place.lineno})")


def _named(component: Component | type[Component]) -> str:
    class_ = component if isinstance(component, type) else type(component)
    return f"{component.kind} '{component.name}' of the plugin {_package(class_.__module__)}"


def _expect(right: bool, component: Component, expected: str, got: Any) -> None:
    if not right:
        raise PluginError(f"{_named(component)}: build returned {type(got).__name__}; expected {expected}")


def prepare(component: Dataset, cache: Path, progress: Progress) -> None:
    """Let a dataset make what it needs. Raises DataError or PluginError."""
    with blamed(component, "prepare"):
        component.prepare(cache, progress)


def open_split(component: Dataset, split: Split, cache: Path) -> Trajectories:
    """Open one split of a dataset. Raises DataError or PluginError."""
    with blamed(component, "build"):
        made = component.build(split, cache)
        metadata = getattr(made, "metadata", None)
    right = isinstance(metadata, Metadata) and callable(getattr(made, "read", None))
    _expect(right, component, "Trajectories, with 'metadata' and 'read'", made)
    return made


def splits_of(component: Dataset) -> tuple[Split, ...]:
    """The splits that a dataset comes with. Raises DataError or PluginError."""
    with blamed(component, "splits"):
        found = tuple(component.splits())
    if not set(found) <= set(get_args(Split)):
        raise PluginError(
            f"{_named(component)}: splits returned {', '.join(map(str, found))}; there are {', '.join(get_args(Split))}"
        )
    return found


def build_network(component: Backbone, fields: Fields) -> nn.Module:
    """The network with fresh weights. Raises ConfigError or PluginError."""
    with blamed(component, "build"):
        made = component.build(fields)
    _expect(isinstance(made, nn.Module), component, "a torch.nn.Module", made)
    return made


class WrongPredictionError(PluginError):
    """A network has returned something else than it promises. Who knows its component says so by its name."""

    def __init__(self, network: nn.Module, words: str) -> None:
        super().__init__(f"the network {type(network).__name__} {words}")
        self.words = words


def check_prediction(network: nn.Module, returned: object, shape: Sequence[int]) -> Prediction:
    """What a network returned, if it is a Prediction whose field has this shape. Raises WrongPredictionError."""
    if not isinstance(returned, Prediction):
        raise WrongPredictionError(network, f"returned {type(returned).__name__}; expected a Prediction")
    if not isinstance(returned.field, Tensor) or returned.field.shape != torch.Size(shape):
        got = getattr(returned.field, "shape", type(returned.field).__name__)
        got = tuple(got) if isinstance(got, torch.Size) else got
        raise WrongPredictionError(network, f"predicted {got}; expected {tuple(shape)}, as (B, horizon, C, *grid)")
    return returned


@contextmanager
def plugins_blamed(
    components: Sequence[Component], network: nn.Module, component: Backbone, probe: Callable[[], object]
) -> Iterator[None]:
    """Raises PluginError for what is raised in the code of one of the components, in training and evaluation.

    Who is to blame is read from where it was raised: nothing is done as long as all goes well. `network` is that of
    the backbone `component`, and `probe` has it predict once, which is how a wrong return value shows that only who
    used it has stumbled over. What no plugin has raised stays as it is.
    """
    try:
        yield
    except WrongPredictionError as error:
        raise _fault(component, "its network", error) from error
    except OpframeError:
        raise
    except Exception as error:
        if is_of_another(error):  # which may well show while the network exchanges something
            raise
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        if any(frame.f_code.co_name in _CALLS and frame.f_locals.get("self") is network for frame in frames):
            raise _fault(component, "its network", error) from error
        packages = [_package(frame.f_globals.get("__name__", "")) for frame in reversed(frames)]
        owners = {_package(type(each).__module__): each for each in reversed(components)}
        culprit = next((owners[package] for package in packages if package in owners), None)
        if culprit is None:
            raise
        if isinstance(error, AttributeError | TypeError):
            with blamed(component, "its network"):
                probe()
        raise _fault(culprit, "its code", error) from error


def _package(module: str) -> str:
    return module.partition(".")[0]


def build_shapes(component: Backbone, fields: Fields) -> nn.Module:
    """The network on torch's meta device: names and shapes without memory. Raises ConfigError or PluginError."""
    with torch.device("meta"):
        return build_network(component, fields)


def build_loss(component: Objective, fields: Fields) -> LossFunction:
    """The loss function of an objective. Raises ConfigError or PluginError."""
    with blamed(component, "build"):
        made = component.build(fields)
    _expect(callable(made), component, "a function of (backbone, batch)", made)
    return made


@frozen
class _CheckedOrder:
    """A sampler's order, which is asked for windows all the way through training."""

    component: Sampler
    order: Order

    def __call__(self, seed: int, step: int, size: int) -> Sequence[Window]:
        """The windows of a global batch. Raises PluginError where there are more or fewer than asked for."""
        with blamed(self.component, "its order"):
            windows = self.order(seed, step, size)
            count = len(windows)
        if count != size:
            raise PluginError(f"{_named(self.component)}: its order gave {counted(count, 'window')} of {size}")
        return windows

    @property
    def shares(self) -> Sequence[float] | None:
        """What part of all samples each dataset is to have, where the sampler says it."""
        return getattr(self.order, "shares", None)


def build_order(component: Sampler, populations: Sequence[Population]) -> Order:
    """The order of training windows. Raises ConfigError or PluginError."""
    with blamed(component, "build"):
        made = component.build(populations)
    _expect(callable(made), component, "a function of (seed, step, size)", made)
    return _CheckedOrder(component, made)


def build_optimizer(component: Optimizer, parameters: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
    """The torch optimizer. Raises ConfigError or PluginError."""
    with blamed(component, "build"):
        made = component.build(parameters)
    _expect(isinstance(made, torch.optim.Optimizer), component, "a torch.optim.Optimizer", made)
    return made


def build_schedule(component: Schedule, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """The torch scheduler. Raises ConfigError or PluginError."""
    with blamed(component, "build"):
        made = component.build(optimizer, steps)
    _expect(isinstance(made, LRScheduler), component, "a torch.optim.lr_scheduler.LRScheduler", made)
    return made


@frozen
class CheckedNormalization:
    """A normalizer's live object, which is asked for every window that is read and every forecast."""

    component: Normalizer
    made: Normalization

    def fit(self, frames: Iterable[Tensor]) -> None:
        """Raises DataError or PluginError."""
        with blamed(self.component, "fit"):
            self.made.fit(frames)

    @property
    def merges(self) -> bool:
        """Whether it can learn from summaries of parts."""
        return isinstance(self.made, MergeableNormalization)

    def summary(self, frames: Iterable[Tensor]) -> dict[str, Tensor]:
        """Raises DataError or PluginError, also where it cannot make one."""
        with blamed(self.component, "summary"):
            found = dict(self._mergeable().summary(frames))
        return self._tensors(found, "summary")

    def fit_summaries(self, summaries: Iterable[Mapping[str, Tensor]]) -> None:
        """Raises DataError or PluginError."""
        with blamed(self.component, "fit_summaries"):
            self._mergeable().fit_summaries(summaries)

    def _mergeable(self) -> MergeableNormalization:
        if not isinstance(self.made, MergeableNormalization):
            raise PluginError(f"{_named(self.component)}: has no 'summary' and 'fit_summaries'")
        return self.made

    def apply(self, frames: Tensor) -> Tensor:
        """Raises PluginError, also where what comes back has another shape."""
        shape = frames.shape
        with blamed(self.component, "apply"):
            applied = self.made.apply(frames)
        return self._of_shape(applied, shape, "apply")

    def restore(self, frames: Tensor) -> Tensor:
        """Raises PluginError, also where what comes back has another shape."""
        with blamed(self.component, "restore"):
            restored = self.made.restore(frames)
        return self._of_shape(restored, frames.shape, "restore")

    def state_dict(self) -> Mapping[str, Tensor]:
        """Raises PluginError, also where it is no mapping to tensors."""
        with blamed(self.component, "state_dict"):
            state = dict(self.made.state_dict())
        return self._tensors(state, "state_dict")

    def _tensors(self, found: dict[str, Tensor], method: str) -> dict[str, Tensor]:
        if wrong := [value for value in found.values() if not isinstance(value, Tensor)]:
            raise PluginError(f"{_named(self.component)}: {method} has a {type(wrong[0]).__name__}; expected tensors")
        return found

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError where it does not fit, and PluginError."""
        unfit: ValueError | None = None
        with blamed(self.component, "load_state_dict"):
            try:
                self.made.load_state_dict(state)
            except ValueError as error:
                unfit = error
        if unfit is not None:
            raise unfit

    def _of_shape(self, frames: Tensor, shape: torch.Size, method: str) -> Tensor:
        if not isinstance(frames, Tensor) or frames.shape != shape:
            got = tuple(frames.shape) if isinstance(frames, Tensor) else type(frames).__name__
            raise PluginError(f"{_named(self.component)}: {method} returned {got}; expected frames {tuple(shape)}")
        return frames


def build_normalization(component: Normalizer, metadata: Metadata) -> CheckedNormalization:
    """The normalization of a dataset, which has learnt nothing yet. Raises ConfigError or PluginError."""
    with blamed(component, "build"):
        made = component.build(metadata)
    methods = ("fit", "apply", "restore", "state_dict", "load_state_dict")
    right = all(callable(getattr(made, method, None)) for method in methods)
    _expect(right, component, f"a Normalization, with {', '.join(methods)}", made)
    return CheckedNormalization(component, made)


def build_logger(component: Logger, run: RunInfo) -> RunLogger:
    """A logger that has begun. Raises RunError or PluginError."""
    with blamed(component, "build"):
        made = component.build(run)
    methods = ("log", "image", "close") if component.images else ("log", "close")
    right = all(callable(getattr(made, name, None)) for name in methods)
    _expect(right, component, f"a RunLogger, with {', '.join(map(repr, methods))}", made)
    return made


def build_callback(component: Callback) -> object:
    """A callback's object, all of whose points there are. Raises PluginError."""
    with blamed(component, "build"):
        made = component.build()
        names = [name for name in dir(made) if callable(getattr(made, name))]
    for name in names:
        if name.startswith(("before_", "after_")) and name not in POINTS:
            raise PluginError(
                f"{_named(component)}: '{name}' is no point of training{did_you_mean(name, POINTS)}; there are "
                f"{', '.join(POINTS)}"
            )
    _expect(any(name in POINTS for name in names), component, f"an object with a method of {', '.join(POINTS)}", made)
    if ("state_dict" in names) != ("load_state_dict" in names):
        fault = "it has one of 'state_dict' and 'load_state_dict'; it needs both, or none"
        raise PluginError(f"{_named(component)}: {fault}")
    return made


@frozen
class CheckedMetric:
    """A metric's function, which is called for every batch of trajectories that is evaluated."""

    component: Metric
    function: MetricFunction

    def __call__(self, prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> dict[str, Tensor]:
        """Named values (B,) or (B, T). Raises PluginError where the function raises, or returns something else."""
        with blamed(self.component, "its function"):
            found = self.function(prediction, truth, mask, metadata)
        shapes = ((prediction.shape[0],), tuple(prediction.shape[:2]))
        if not isinstance(found, Mapping) or not found:
            raise PluginError(
                f"{_named(self.component)}: its function returned {type(found).__name__}; expected a mapping from "
                "names to tensors"
            )
        for name, value in found.items():
            shape = tuple(value.shape) if isinstance(value, Tensor) else None
            if not isinstance(name, str) or not name or shape not in shapes:
                got = type(value).__name__ if shape is None else f"a tensor {shape}"
                raise PluginError(
                    f"{_named(self.component)}: its function returned {got} as {name!r}; expected a name, and a tensor "
                    f"{shapes[0]}, one value of every trajectory, or {shapes[1]}, one of every frame"
                )
        return dict(found)


def build_metric(component: Metric, fields: Fields) -> CheckedMetric:
    """The function of a metric. Raises ConfigError or PluginError."""
    with blamed(component, "build"):
        made = component.build(fields)
    _expect(callable(made), component, "a function of (prediction, truth, mask, metadata)", made)
    return CheckedMetric(component, made)
