"""Deliberately broken components: each is caught by the name of the promise that it breaks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from attrs import define, evolve, field, frozen
from numpy.typing import NDArray
from torch import Tensor, nn

from opframe_registry import (
    Adapted,
    Backbone,
    Batch,
    Callback,
    Change,
    Component,
    ConfigError,
    DataError,
    Dataset,
    Fields,
    Logger,
    Metadata,
    Metric,
    Normalizer,
    Objective,
    Optimizer,
    Population,
    Prediction,
    RunInfo,
    Sampler,
    Schedule,
    Split,
    Training,
    Window,
)
from opframe_registry.testing import Case, broken_promises
from opframe_registry.testing.helper import Helper
from opframe_registry.testing.promise import broken_promises_of

# ---- datasets


@define
class Frames:
    """Frames that are computed from their numbers; `fault` says what is wrong with them."""

    fault: str
    metadata: Metadata
    kept: dict[Any, Any] = field(factory=dict)
    reads: int = 0

    def read(self, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
        own = self.metadata
        known = 0 <= trajectory < own.trajectories and 0 <= start < stop <= own.length(min(trajectory, 2))
        if not known and self.fault != "beyond_the_end_is_refused":
            raise DataError(f"trajectory {trajectory} has no frames {start}..{stop}")
        self.reads += 1
        numbers = 10 * trajectory + np.arange(start, stop)
        frames = np.broadcast_to(numbers[:, None, None, None], (stop - start, 2, 4, 5)).astype("f4")
        return self._broken(frames, trajectory, start)

    def _broken(self, frames: NDArray[np.float32], trajectory: int, start: int) -> NDArray[Any]:
        match self.fault:
            case "metadata_are_true":
                return frames.astype("f8")
            case "values_are_finite":
                frames[:, 1, 0, 0] = np.inf
            case "windows_are_parts_of_trajectories":
                frames[0] = 0
            case "the_order_of_reads_does_not_matter":
                return self.kept.setdefault((trajectory, start, len(frames)), frames)
            case "open_files_are_bounded":
                self.kept[self.reads] = Path(__file__).open()  # noqa: SIM115
        return frames

    def __getstate__(self) -> Any:
        if self.fault == "copies_read_in_threads":
            raise TypeError("cannot be pickled")
        return self.fault, self.metadata

    def __setstate__(self, state: Any) -> None:
        self.fault, self.metadata = state
        self.kept, self.reads = {}, 0
        import threading

        if self.fault == "another_process_reads_the_same" and threading.current_thread() is threading.main_thread():
            self.metadata = evolve(self.metadata, trajectories=1)


@frozen(kw_only=True)
class Numbers(Dataset):
    """Frames that are computed."""

    name: ClassVar[str] = "numbers"
    fault: str = ""

    def splits(self) -> tuple[Split, ...]:
        return ("train",) if self.fault == "splits_are_those_that_can_be_built" else ("train", "test")

    def identity(self, *given: Any, **named: Any) -> Any:
        found = super().identity(*given, **named)
        return evolve(found, revision=len(self.label)) if self.fault == "its_identity_is_stable" else found

    def build(self, split: Split, cache: Path) -> Frames:
        metadata = Metadata(
            trajectories=3, frames=6, grid=(4, 5), channels=("u", "v"), predicted=("u",), lengths=(6, 4, 5)
        )
        return Frames(self.fault, metadata)


# ---- backbones


class Net(nn.Module):
    """A weighted mean of what it sees; `fault` says what is wrong with it."""

    def __init__(self, fields: Fields, fault: str) -> None:
        super().__init__()
        self.fields, self.fault, self.calls = fields, fault, 0
        count = fields.history * len(fields.channels)
        self.mix = nn.Linear(count, fields.horizon * len(fields.channels))
        if fault == "gradients_reach_the_inputs_and_every_parameter":
            self.unused = nn.Parameter(torch.ones(3))
        if fault == "a_seed_decides_the_weights":
            nn.init.constant_(self.mix.weight, 0.1)
            nn.init.constant_(self.mix.bias, 0.1)

    def forward(self, window: Tensor, conditions: Any) -> Prediction:
        fields = self.fields
        if self.fault == "another_grid_is_refused_or_right" and window.shape[3:] != fields.grid:
            window = window[..., : fields.grid[-1]]
        field = self.mix(window.flatten(1, 2).movedim(1, -1)).movedim(-1, 1)
        field = field.unflatten(1, (fields.horizon, len(fields.channels)))
        if self.fault != "it_works_under_autocast":
            field = field.float()
        return Prediction(field=self._broken(field, window, conditions))

    def _broken(self, field: Tensor, window: Tensor, conditions: Any) -> Tensor:
        match self.fault:
            case "predictions_have_the_shape_of_the_fields":
                return field.double()
            case "conditions_are_used_or_ignored":
                return field + conditions.time_step.view(-1, *[1] * (field.ndim - 1))
            case "samples_do_not_influence_each_other":
                return field + window.mean()
            case "a_training_step_compiles_to_one_graph":
                torch._dynamo.graph_break()
            case "the_state_dict_holds_all_that_training_changes":
                self.calls += self.training
                return field + self.calls
            case "a_tiny_problem_is_overfitted":
                return field.detach() + 0 * field
        return field

    def __deepcopy__(self, memo: Any) -> Net:
        if self.fault == "it_pickles_and_copies":
            return Net(self.fields, self.fault).eval()
        other = Net(self.fields, self.fault)
        other.load_state_dict(self.state_dict())
        return other.train(self.training)


@frozen(kw_only=True)
class Mean(Backbone):
    """A weighted mean of frames."""

    name: ClassVar[str] = "mean"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"mix": ("mix.*",)}
    fault: str = ""

    def build(self, fields: Fields) -> nn.Module:
        if self.normalize:
            raise ConfigError("it has no such option")
        return Net(fields, self.fault)

    def idle(self) -> int:
        return 7 if self.fault == "idle_counts_what_one_sample_does_not_use" else 0

    def adapt(self, change: Change) -> Adapted | None:
        if self.fault == "weights_fit_the_same_fields_as_they_are" and change.weight.shape == change.fresh.shape:
            return Adapted(weight=change.fresh)
        if self.fault == "adapted_weights_fit_other_fields":
            return Adapted(weight=change.weight)
        return super().adapt(change)


@frozen(kw_only=True)
class Partless(Mean):
    """Names a part of which there is nothing."""

    name: ClassVar[str] = "partless"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"mix": ("mix.*",), "head": ("head.*",)}


@frozen(kw_only=True)
class Unbuildable(Mean):
    """Has a preset that cannot be built."""

    name: ClassVar[str] = "unbuildable"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"large": {"normalize": True}}


# ---- samplers


@frozen
class Even:
    """Windows with equal chances."""

    populations: tuple[Population, ...]
    fault: str
    calls: list[int]

    def __call__(self, seed: int, step: int, size: int) -> Sequence[Window]:
        self.calls.append(step)
        count = len(self.calls) if self.fault == "it_is_a_function_of_seed_and_step" else 0
        step = 0 if self.fault == "seeds_and_steps_differ" else step
        random = np.random.default_rng([seed % 2**32, step, count])
        size -= self.fault == "it_gives_as_many_windows_as_asked_for"
        every = [
            Window(number, trajectory, start)
            for number, population in enumerate(self.populations)
            for trajectory, starts in enumerate(population.starts)
            for start in range(starts + (self.fault == "windows_lie_inside_their_trajectories"))
        ]
        every = every[1:] if self.fault == "every_window_is_drawn" else every
        drawn = [every[number] for number in random.integers(len(every), size=size)]
        return set(drawn) if self.fault == "any_number_of_processes_share_a_batch" else drawn  # type: ignore[return-value]


@frozen(kw_only=True)
class Uniform(Sampler):
    """Draws every window with equal chance."""

    name: ClassVar[str] = "uniform"
    fault: str = ""

    def build(self, populations: Sequence[Population]) -> Even:
        return Even(tuple(populations), self.fault, [])


# ---- objectives


def rolled_out(model: nn.Module, batch: Batch) -> Tensor:
    """As many frames as there are targets."""
    window = batch.inputs
    while window.shape[1] < batch.inputs.shape[1] + batch.targets.shape[1]:
        frames = model(window[:, -batch.inputs.shape[1] :], batch.conditions).field
        window = torch.cat([window, frames], 1)
    return window[:, batch.inputs.shape[1] :]


@frozen(kw_only=True)
class Square(Objective):
    """The mean square of the error."""

    name: ClassVar[str] = "square"
    fault: str = ""

    def build(self, fields: Fields) -> Any:
        return self._loss

    def _loss(self, model: nn.Module, batch: Batch) -> Any:
        field = rolled_out(model, batch)
        mask = batch.mask.expand(batch.targets.shape)
        if self.fault == "what_is_masked_does_not_count":
            mask = torch.ones_like(mask)
        error = torch.where(mask > 0, field - batch.targets, 0.0).square().flatten(1).sum(1)
        error = error / mask.flatten(1).sum(1).clamp(min=1)
        match self.fault:
            case "losses_are_named_finite_scalars":
                return error.mean()
            case "gradients_reach_the_backbone":
                return {"square": error.mean().detach() + 0 * field.sum()}
            case "it_is_decided_by_seeds":
                return {"square": error.mean() * torch.rand(())}
            case "it_does_not_depend_on_how_a_batch_is_split":
                return {"square": error.sum()}
        return {"square": error.mean()}


# ---- normalizers


class Moved:
    """Frames minus the mean of each channel, divided by its deviation."""

    def __init__(self, fault: str, metadata: Metadata) -> None:
        self.fault, self.axes = fault, len(metadata.grid)
        self.channels = len(metadata.channels)
        self.mean = self.spread = torch.zeros(3)

    def fit(self, frames: Any) -> None:
        values = torch.cat([piece.movedim(1, 0).flatten(1) for piece in frames], 1)
        if self.fault == "missing_values_do_not_count":
            values = values.nan_to_num(0.0)
        there = values.isfinite()
        if not there.any(1).all():
            raise DataError("a channel has no value")
        self.mean = torch.nanmean(values, 1)
        spread = torch.where(there, values - self.mean[:, None], 0.0).square().sum(1) / there.sum(1)
        self.spread = spread.sqrt()
        if self.fault != "a_constant_channel_stays_finite":
            self.spread = torch.where(self.spread <= 1e-6 * self.mean.abs() + 1e-12, 1.0, self.spread)
        self.low, self.high = (getattr(values.nan_to_num(0.0), name)(1) for name in ("amin", "amax"))

    def _columns(self, value: Tensor, frames: Tensor) -> Tensor:
        return value.to(frames.device).view(-1, *[1] * self.axes)

    def apply(self, frames: Tensor) -> Tensor:
        applied = (frames - self._columns(self.mean, frames)) / self._columns(self.spread, frames)
        if self.fault == "any_values_can_be_applied":
            inside = (frames >= self._columns(self.low, frames)) & (frames <= self._columns(self.high, frames))
            applied = applied.where(inside, torch.nan)
        return applied.double() if self.fault == "type_and_device_are_kept" else applied

    def restore(self, frames: Tensor) -> Tensor:
        if self.fault == "restore_undoes_apply":
            return frames * self._columns(self.spread, frames)
        if self.fault == "gradients_pass_through_restore":
            frames = frames.detach()
            return (frames * self._columns(self.spread, frames) + self._columns(self.mean, frames)).requires_grad_()
        return frames * self._columns(self.spread, frames) + self._columns(self.mean, frames)

    def state_dict(self) -> Mapping[str, Tensor]:
        state = {"mean": self.mean, "spread": self.spread}
        return {"mean": self.mean} if self.fault == "its_state_is_all_that_it_learnt" else state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if len(state["mean"]) != self.channels:
            raise ValueError("of other channels")
        self.mean, self.spread = state["mean"], state.get("spread", torch.ones(3))

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.fault == "it_pickles":
            raise TypeError("cannot be pickled")
        return super().__reduce_ex__(protocol)


@frozen(kw_only=True)
class Standard(Normalizer):
    """Mean 0 and deviation 1."""

    name: ClassVar[str] = "standard"
    fault: str = ""

    def build(self, metadata: Metadata) -> Moved:
        return Moved(self.fault, metadata)


# ---- metrics


@frozen(kw_only=True)
class Absolute(Metric):
    """The mean of the absolute error, of every frame and of the whole roll-out."""

    name: ClassVar[str] = "absolute"
    fault: str = ""

    def build(self, fields: Fields) -> Any:
        calls: list[int] = []

        def measure(prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> Any:
            calls.append(0)
            weights = mask.expand(truth.shape)
            if self.fault == "what_is_masked_does_not_count":
                error = (prediction - truth).abs() * weights
            else:
                error = torch.where(weights > 0, (prediction - truth).abs(), 0.0)
            sums, counts = error.flatten(2).sum(2), weights.flatten(2).sum(2)
            frames = sums / counts
            whole = sums.sum(1) / counts.sum(1)
            match self.fault:
                case "values_are_of_trajectories_or_frames":
                    return {"absolute": whole.mean()}
                case "a_trajectory_does_not_depend_on_the_others":
                    return {"absolute": whole - whole.mean() + 1}
                case "a_perfect_prediction_is_best":
                    return {"absolute": whole + 0.1}
                case "frames_that_are_masked_whole_are_left_out":
                    return {"absolute_frames": frames.nan_to_num(0.0)}
                case "it_is_a_pure_function":
                    return {"absolute": whole * len(calls)}
            return {"absolute_frames": frames, "absolute": whole}

        return measure if self.fault == "it_is_a_pure_function" else lambda *given: measure(*given)


_CALLS: list[int] = []


@frozen(kw_only=True)
class Counting(Metric):
    """Remembers how often it was called."""

    name: ClassVar[str] = "counting"

    def build(self, fields: Fields) -> Any:
        def measure(prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> Any:
            _CALLS.append(0)
            error = torch.where(mask > 0, prediction - truth, 0.0).square().flatten(1).sum(1)
            return {"error": error * len(_CALLS)}

        return measure


# ---- loggers


class Lines:
    """A line for every record, in a file."""

    def __init__(self, fault: str, run: RunInfo) -> None:
        self.fault, self.path = fault, run.folder / "lines.txt"
        if fault == "a_run_goes_on_where_it_was" and run.step:
            self.path.unlink()
            self.path = run.folder / "other.txt"
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        self.path.write_text("".join(line for line in lines if int(line.split()[0]) <= run.step))
        self.file = self.path.open("a")

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        if self.fault == "it_takes_numbers_of_every_kind":
            values = {name: int(value) for name, value in values.items()}
        self.file.write(f"{step} {kind} {dict(values)}\n")

    def image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        if self.fault == "it_takes_pictures":
            raise NotImplementedError
        self.file.write(f"{step} {name} {image.shape}\n")

    def close(self) -> None:
        if self.fault == "closing_twice_does_no_harm" and self.file.closed:
            raise ValueError("closed already")
        self.file.close()


@frozen(kw_only=True)
class Text(Logger):
    """Lines in a text file."""

    name: ClassVar[str] = "text"
    fault: str = ""

    def build(self, run: RunInfo) -> Lines:
        return Lines(self.fault, run)


# ---- callbacks


class Decay:
    """Shrinks the weights after each step, ever less."""

    def __init__(self, fault: str) -> None:
        self.fault, self.strength = fault, 0.5
        if fault == "it_has_known_points_only":
            self.after_stepp = self.after_step

    def after_step(self, training: Training) -> None:
        if self.fault == "it_goes_through_training":
            training.log({"strength": "much"})  # type: ignore[dict-item]
        with torch.no_grad():
            for weight in training.backbone.parameters():
                weight.mul_(1 - self.strength)
        self.strength *= 0.9

    def state_dict(self) -> Any:
        if self.fault == "its_state_can_be_saved":
            return [self.strength]
        return {} if self.fault == "a_resumed_training_ends_the_same" else {"strength": self.strength}

    def load_state_dict(self, state: Any) -> None:
        self.strength = state["strength"] if isinstance(state, dict) and state else 0.5


@frozen(kw_only=True)
class Shrink(Callback):
    """Shrinks weights."""

    name: ClassVar[str] = "shrink"
    fault: str = ""

    def build(self) -> Decay:
        return Decay(self.fault)


# ---- optimizers and schedules


class Descent(torch.optim.SGD):
    """Plain descent with momentum of its own."""

    fault = ""

    def step(self, closure: Any = None) -> Any:
        self.done = getattr(self, "done", 0) + 1
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    if self.fault == "parameters_without_gradient_stay":
                        weight.data.mul_(0.9)
                    continue
                rate = group["lr"] * (self.done if self.fault == "its_state_is_all_that_it_keeps" else 1)
                weight.data.sub_(0.1 * rate * weight.grad if self.fault != "it_finds" else 0)


@frozen(kw_only=True)
class Plain(Optimizer):
    """Plain gradient descent."""

    name: ClassVar[str] = "plain"
    fault: str = ""

    def build(self, parameters: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        groups: Any = parameters
        if self.fault == "learning_rates_are_heeded":
            groups = [{**group, "lr": 0.05} for group in parameters]
        made = Descent(groups, lr=self.learning_rate)
        made.fault = "it_finds" if self.fault == "it_finds_the_lowest_point_of_a_bowl" else self.fault
        return made


class Falling(torch.optim.lr_scheduler.LambdaLR):
    """Linear to zero."""

    def __init__(self, optimizer: torch.optim.Optimizer, steps: int, fault: str) -> None:
        self.fault, self.extra = fault, 0
        last = 30 if fault == "it_lasts_all_steps" else steps
        peak = 0.5 if fault == "the_learning_rate_is_the_peak" else 1.0
        super().__init__(optimizer, lambda step: peak * (1 - (step + self.extra) / last))

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return {**state, "last_epoch": 0} if self.fault == "its_state_is_all_that_it_keeps" else state


@frozen(kw_only=True)
class Line(Schedule):
    """Linear to zero."""

    name: ClassVar[str] = "line"
    fault: str = ""

    def build(self, optimizer: torch.optim.Optimizer, steps: int) -> Falling:
        return Falling(optimizer, steps, self.fault)


# ---- the tests

GOOD = (Numbers, Mean, Uniform, Square, Standard, Absolute, Text, Shrink, Plain, Line)
BROKEN: tuple[tuple[type[Component], tuple[str, ...]], ...] = (
    (
        Numbers,
        (
            "metadata_are_true",
            "values_are_finite",
            "windows_are_parts_of_trajectories",
            "the_order_of_reads_does_not_matter",
            "beyond_the_end_is_refused",
            "copies_read_in_threads",
            "another_process_reads_the_same",
            "open_files_are_bounded",
            "splits_are_those_that_can_be_built",
            "its_identity_is_stable",
        ),
    ),
    (
        Mean,
        (
            "predictions_have_the_shape_of_the_fields",
            "conditions_are_used_or_ignored",
            "gradients_reach_the_inputs_and_every_parameter",
            "idle_counts_what_one_sample_does_not_use",
            "a_seed_decides_the_weights",
            "samples_do_not_influence_each_other",
            "it_works_under_autocast",
            "a_training_step_compiles_to_one_graph",
            "the_state_dict_holds_all_that_training_changes",
            "it_pickles_and_copies",
            "weights_fit_the_same_fields_as_they_are",
            "adapted_weights_fit_other_fields",
            "a_tiny_problem_is_overfitted",
            "another_grid_is_refused_or_right",
        ),
    ),
    (
        Uniform,
        (
            "it_gives_as_many_windows_as_asked_for",
            "windows_lie_inside_their_trajectories",
            "it_is_a_function_of_seed_and_step",
            "every_window_is_drawn",
            "seeds_and_steps_differ",
            "any_number_of_processes_share_a_batch",
        ),
    ),
    (
        Square,
        (
            "losses_are_named_finite_scalars",
            "gradients_reach_the_backbone",
            "it_is_decided_by_seeds",
            "it_does_not_depend_on_how_a_batch_is_split",
            "what_is_masked_does_not_count",
        ),
    ),
    (
        Standard,
        (
            "restore_undoes_apply",
            "a_constant_channel_stays_finite",
            "missing_values_do_not_count",
            "its_state_is_all_that_it_learnt",
            "it_pickles",
            "type_and_device_are_kept",
            "gradients_pass_through_restore",
            "any_values_can_be_applied",
        ),
    ),
    (
        Absolute,
        (
            "values_are_of_trajectories_or_frames",
            "a_trajectory_does_not_depend_on_the_others",
            "a_perfect_prediction_is_best",
            "what_is_masked_does_not_count",
            "frames_that_are_masked_whole_are_left_out",
        ),
    ),
    (
        Text,
        (
            "it_takes_numbers_of_every_kind",
            "it_takes_pictures",
            "a_run_goes_on_where_it_was",
            "closing_twice_does_no_harm",
        ),
    ),
    (
        Shrink,
        (
            "it_has_known_points_only",
            "it_goes_through_training",
            "its_state_can_be_saved",
            "a_resumed_training_ends_the_same",
        ),
    ),
    (
        Plain,
        (
            "it_finds_the_lowest_point_of_a_bowl",
            "learning_rates_are_heeded",
            "its_state_is_all_that_it_keeps",
            "parameters_without_gradient_stay",
        ),
    ),
    (Line, ("it_lasts_all_steps", "the_learning_rate_is_the_peak", "its_state_is_all_that_it_keeps")),
)
FAULTS = [(class_, fault) for class_, faults in BROKEN for fault in faults]


@pytest.fixture(scope="module")
def helper() -> Iterator[Helper]:
    """One process for all."""
    with Helper() as helper:
        yield helper


@pytest.mark.parametrize("class_", GOOD)
def test_a_good_component_breaks_no_promise(class_: type[Component], tmp_path: Path) -> None:
    good = {"a_tiny_problem_is_overfitted"} if class_ is Mean else set()  # which a mean cannot
    assert broken_promises(class_(), tmp_path).keys() <= good


@pytest.mark.parametrize(("class_", "fault"), FAULTS, ids=[f"{class_.kind}-{fault}" for class_, fault in FAULTS])
def test_a_broken_component_is_caught_by_the_name_of_the_promise(
    class_: type[Component], fault: str, tmp_path: Path, helper: Helper
) -> None:
    component = class_(fault=fault)  # type: ignore[call-arg]
    found = broken_promises_of(Case(component=component, folder=tmp_path, helper=helper))
    assert fault in found, found
    assert f"{class_.name}[{class_.kind}]::{fault} is broken. Promised: " in str(found[fault])


def test_faults_of_classes_are_caught(tmp_path: Path) -> None:
    assert "parts_are_the_whole" in broken_promises(Partless(), tmp_path)
    assert "presets_can_be_built" in broken_promises(Unbuildable(), tmp_path)
    assert "it_is_a_pure_function" in broken_promises(Counting(), tmp_path)

    @frozen(kw_only=True)
    class Silent(Uniform):
        name: ClassVar[str] = "silent"

    Silent.__doc__ = None
    assert "it_says_what_it_is" in broken_promises(Silent(), tmp_path)
