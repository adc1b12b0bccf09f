"""What a callback promises."""

from __future__ import annotations

import io
import pickle
import random
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from opframe_registry.components import Callback
from opframe_registry.testing.promise import Case, NotApplicableError, Promise, require
from opframe_registry.training import POINTS

_STEPS = 6
_ODD = 40_823_391
_LONG = 60  # steps, of a training that a patient callback may find too long


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
        self.asked: list[tuple[int, str, Any]] = []
        self.rollbacks = 0
        self.skipped = False

    def mean(self, value: Tensor) -> Tensor:
        """As the trainer's, of one process."""
        return value

    def say(self, words: str) -> None:
        """As the trainer's."""
        self.asked.append((self.step, "say", words))

    def skip(self, reason: str) -> None:
        """As the trainer's."""
        self.skipped = True
        self.asked.append((self.step, "skip", reason))

    def roll_back(self, reason: str) -> None:
        """As the trainer's, but that this training has no checkpoint to go back to."""
        self.asked.append((self.step, "roll_back", reason))

    def log(self, values: Mapping[str, float]) -> None:
        """As the trainer's."""
        self.logged.append(values)
        self.asked += [(self.step, f"log {name}", value) for name, value in values.items()]

    def stop(self, reason: str) -> None:
        """As the trainer's."""
        self.ended.append(reason)
        self.asked.append((self.step, "stop", reason))

    def interrupt(self, reason: str) -> None:
        """As the trainer's."""
        self.ended.append(reason)
        self.asked.append((self.step, "interrupt", reason))


def _made(case: Case) -> Any:
    return cast("Callback", case.component).build()


def _call(callback: Any, point: str, *arguments: Any) -> None:
    method = getattr(callback, point, None)
    if method is not None:
        method(*arguments)


def _train(callback: Any, stage: Stage, steps: int, error: float | None = None, evaluate: bool = True) -> None:
    """Some steps of training, with an evaluation after every second one, ever better unless the error is given."""
    for _ in range(steps):
        _call(callback, "before_step", stage)
        data = torch.sin(torch.arange(12.0).view(3, 4) + stage.step)
        loss = stage.backbone(data).square().mean()
        torch.autograd.backward(loss)
        stage.losses = {"loss": loss.detach()}
        stage.skipped = False
        _call(callback, "after_backward", stage)
        if not stage.skipped:
            stage.optimizer.step()
        stage.optimizer.zero_grad()
        stage.step += 1
        _call(callback, "after_step", stage)
        if evaluate and stage.step % 2 == 0:
            _call(callback, "before_evaluation", stage)
            selected = 1.0 / stage.step if error is None else error
            _call(callback, "after_evaluation", stage, {"mean/full": selected, "selected": selected})


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


def a_resumed_training_is_asked_the_same(case: Case) -> None:
    """What is logged, and when training is stopped or interrupted, is the same with a fresh callback in the middle.

    What two whole trainings do not agree in either, as the time, is not compared.
    """
    whole, same = (_asked(case, resume_at=None) for _ in range(2))
    resumed = _asked(case, resume_at=_LONG // 2 - 1)
    if len({len(whole), len(same)}) > 1:
        raise NotApplicableError("two trainings from the same seed are not asked the same")
    found, due = _first_other(resumed, whole), _first_other(whole, resumed)
    agree = [entry[:2] for entry in resumed] == [entry[:2] for entry in whole]
    require(agree, f"one that was resumed is asked {found}, one that was not {due}")
    for one, two, three in zip(whole, same, resumed, strict=True):
        require(one != two or three == one, f"one that was resumed is asked {three}, one that was not {one}")


def _asked(case: Case, resume_at: int | None) -> list[tuple[int, str, Any]]:
    """What a long training, which does not get better, is asked by the step, what and value."""
    callback, stage = _made(case), Stage()
    stage.steps = _LONG
    _call(callback, "before_training", stage)
    if resume_at is not None:
        _train(callback, stage, resume_at, error=1.0)
        fresh = _made(case)
        if hasattr(callback, "state_dict"):
            fresh.load_state_dict(_saved(callback.state_dict()))
        callback = fresh
        _call(callback, "before_training", stage)
    _train(callback, stage, _LONG - stage.step, error=1.0)
    return stage.asked


def _first_other(one: list[tuple[int, str, Any]], two: list[tuple[int, str, Any]]) -> str:
    """The first entry of a list that the other does not have, in words."""
    others = [entry for entry in one if entry[:2] not in [each[:2] for each in two]]
    return f"'{others[0][1]}' at step {others[0][0]}" if others else "nothing more"


def its_random_numbers_are_its_own(case: Case) -> None:
    """Random numbers are drawn from the seed of the run and the step, never from those of the whole program."""
    callback, stage = _made(case), Stage()
    kept = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002 - the shared ones are meant
    torch.manual_seed(_ODD)  # a state that no callback puts them into
    random.seed(_ODD)
    np.random.seed(_ODD)  # noqa: NPY002
    try:
        before = _shared_random_numbers()
        _call(callback, "before_training", stage)
        _train(callback, stage, _STEPS)
        _call(callback, "after_training", stage)
        after = _shared_random_numbers()
    finally:
        torch.set_rng_state(kept[0])
        random.setstate(kept[1])
        np.random.set_state(kept[2])  # noqa: NPY002
    changed = [name for name in before if before[name] != after[name]]
    require(not changed, f"it draws from, or seeds, the random numbers of {' and '.join(changed)}, which all share")


def _shared_random_numbers() -> dict[str, bytes]:
    """Where the random numbers are that all of the program share, by the module that they are of."""
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "random": pickle.dumps(random.getstate()),
        "numpy": pickle.dumps(np.random.get_state()),  # noqa: NPY002
    }


def it_needs_evaluations_only_if_it_says_so(case: Case) -> None:
    """Unless `needs_evaluation` is said, it goes through training without any; if it is, it has a point of them."""
    callback, stage = _made(case), Stage()
    if type(cast("Callback", case.component)).needs_evaluation:
        has = any(hasattr(callback, point) for point in POINTS if point.endswith("_evaluation"))
        require(has, "needs_evaluation is said, but it has neither before_evaluation nor after_evaluation")
        return
    _call(callback, "before_training", stage)
    _train(callback, stage, _STEPS, evaluate=False)
    _call(callback, "after_training", stage)


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
    a_resumed_training_is_asked_the_same,
    its_random_numbers_are_its_own,
    it_needs_evaluations_only_if_it_says_so,
)
