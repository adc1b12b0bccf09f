"""What a callback promises."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from opframe_registry.components import Callback
from opframe_registry.testing.promise import Case, NotApplicableError, Promise, require
from opframe_registry.training import POINTS

_STEPS = 6


class Stage:
    """A training of a small network, of which a callback sees what it would see of any."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.backbone: nn.Module = nn.Linear(4, 2)
        self.optimizer = torch.optim.SGD(self.backbone.parameters(), lr=0.1)
        self.step, self.steps, self.seed = 0, _STEPS, 3
        self.losses: Mapping[str, Tensor] = {}
        self.logged: list[Mapping[str, float]] = []
        self.ended: list[str] = []

    def log(self, values: Mapping[str, float]) -> None:
        """As the trainer's."""
        self.logged.append(values)

    def stop(self, reason: str) -> None:
        """As the trainer's."""
        self.ended.append(reason)

    def interrupt(self, reason: str) -> None:
        """As the trainer's."""
        self.ended.append(reason)


def _made(case: Case) -> Any:
    return cast("Callback", case.component).build()


def _call(callback: Any, point: str, *arguments: Any) -> None:
    method = getattr(callback, point, None)
    if method is not None:
        method(*arguments)


def _train(callback: Any, stage: Stage, steps: int) -> None:
    """Some steps of training, with an evaluation after every second one."""
    for _ in range(steps):
        _call(callback, "before_step", stage)
        data = torch.sin(torch.arange(12.0).view(3, 4) + stage.step)
        loss = stage.backbone(data).square().mean()
        torch.autograd.backward(loss)
        stage.losses = {"loss": loss.detach()}
        _call(callback, "after_backward", stage)
        stage.optimizer.step()
        stage.optimizer.zero_grad()
        stage.step += 1
        _call(callback, "after_step", stage)
        if stage.step % 2 == 0:
            _call(callback, "before_evaluation", stage)
            error = 1.0 / stage.step
            _call(callback, "after_evaluation", stage, {"mean/full": error, "selected": error})


def it_has_known_points_only(case: Case) -> None:
    """Its methods that begin with before_ or after_ are points of training, and it has at least one."""
    names = [name for name in dir(_made(case)) if name.startswith(("before_", "after_"))]
    unknown = [name for name in names if name not in POINTS]
    require(not unknown, f"{', '.join(unknown)} is no point; there are {', '.join(POINTS)}")
    require(bool(names), f"it has none of the points {', '.join(POINTS)}")


def it_goes_through_training(case: Case) -> None:
    """All points can be called in the order in which they come, and log finite numbers by names."""
    callback, stage = _made(case), Stage()
    _call(callback, "before_training", stage)
    _train(callback, stage, _STEPS)
    _call(callback, "after_training", stage)
    for values in stage.logged:
        right = all(isinstance(name, str) and isinstance(value, float | int) for name, value in values.items())
        require(right, f"it logs {values}, expected names with numbers")
    require(all(isinstance(reason, str) for reason in stage.ended), "the reason of an end is no text")


def its_state_can_be_saved(case: Case) -> None:
    """Where it has `state_dict`, it has `load_state_dict` too, and the state is a mapping that torch saves."""
    callback, stage = _with_state(case), Stage()
    _call(callback, "before_training", stage)
    _train(callback, stage, 3)
    state = callback.state_dict()
    require(isinstance(state, Mapping), f"state_dict() is a {type(state).__name__}, expected a mapping")
    callback.load_state_dict(_saved(state))


def a_resumed_training_ends_the_same(case: Case) -> None:
    """Training that is saved in the middle and goes on with a fresh callback ends with the same bits."""
    callback, stage = _made(case), Stage()
    _call(callback, "before_training", stage)
    _train(callback, stage, 3)
    resumed, other = Stage(), _made(case)
    resumed.backbone.load_state_dict(stage.backbone.state_dict())
    resumed.step = stage.step
    if hasattr(callback, "state_dict"):
        other.load_state_dict(_saved(callback.state_dict()))
    _call(other, "before_training", resumed)
    ends: list[list[Tensor]] = []
    for own, place in ((callback, stage), (other, resumed)):
        torch.manual_seed(len(ends))  # what it draws has to come from the seed of the run and the step
        _train(own, place, _STEPS - 3)
        ends.append([value.clone() for value in place.backbone.state_dict().values()])
    same = all(map(torch.equal, *ends))
    require(same, "the weights of a training that was resumed differ; keep in state_dict what changes")


def _with_state(case: Case) -> Any:
    callback = _made(case)
    names = [name for name in ("state_dict", "load_state_dict") if hasattr(callback, name)]
    if not names:
        raise NotApplicableError("it has no state")
    require(len(names) == 2, f"it has {names[0]} alone; it needs both of state_dict and load_state_dict, or none")
    return callback


def _saved(state: Any) -> Any:
    """The state as it comes back from a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


PROMISES: tuple[Promise, ...] = (
    it_has_known_points_only,
    it_goes_through_training,
    its_state_can_be_saved,
    a_resumed_training_ends_the_same,
)
