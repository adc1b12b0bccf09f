"""What is done at points of training, as the experiment says: collected once, so that no step looks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from opframe.config import building
from opframe.config.settings import Experiment
from opframe_registry import POINTS, Callback, Catalog, ConfigError

Call = Callable[..., None]
"""A callback's method of one point, of the `Training` and what else the point gives."""


@frozen
class _Live:
    component: Callback
    callback: Any

    def method(self, name: str) -> Call:
        """A method whose faults are the component's."""
        method = getattr(self.callback, name)

        def call(*arguments: Any) -> None:
            with building.blamed(self.component, name):
                method(*arguments)

        return call


@frozen
class Callbacks:
    """The callbacks of a run. Each point has the methods that are to be called, in the order of the experiment."""

    _live: Mapping[str, _Live] = field(factory=dict)
    before_training: tuple[Call, ...] = ()
    before_step: tuple[Call, ...] = ()
    after_backward: tuple[Call, ...] = ()
    after_step: tuple[Call, ...] = ()
    before_evaluation: tuple[Call, ...] = ()
    after_evaluation: tuple[Call, ...] = ()
    after_training: tuple[Call, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._live)

    def state(self) -> dict[str, Any]:
        """What is to be saved of those that have a state, by their names. Raises PluginError."""
        states = {}
        for name, each in self._with_state().items():
            with building.blamed(each.component, "state_dict"):
                states[name] = each.callback.state_dict()
        return states

    def load(self, states: Mapping[str, Any]) -> list[str]:
        """Take the states that there are; returns in words what does not fit. Raises PluginError."""
        live = self._with_state()
        for name in live.keys() & states.keys():
            with building.blamed(live[name].component, "load_state_dict"):
                live[name].callback.load_state_dict(states[name])
        new, gone = [name for name in live if name not in states], [name for name in states if name not in live]
        return [
            *(f"the callback {name} has no state in the checkpoint, and begins anew" for name in new),
            *(f"the state of the callback {name} is left out, which the experiment does not have" for name in gone),
        ]

    def _with_state(self) -> dict[str, _Live]:
        return {name: each for name, each in self._live.items() if hasattr(each.callback, "state_dict")}


def callbacks_of(experiment: Experiment, catalog: Catalog) -> tuple[Callback, ...]:
    """Those that the experiment lists, and the clock where `trainer.wall_clock` asks for it. Raises PluginError."""
    limit = experiment.trainer.wall_clock
    if limit is None:
        return experiment.callbacks
    clock: Any = catalog.get(Callback, "wall_clock")
    return (*experiment.callbacks, clock(limit=limit))


def build_callbacks(components: Sequence[Callback]) -> Callbacks:
    """Make all of them. Raises PluginError.

    Each has the name of its type, the second one of a type with a number: another one beside it changes no name.
    """
    live: dict[str, _Live] = {}
    for component in components:
        earlier = sum(each.component.name == component.name for each in live.values())
        name = f"{component.name}_{earlier + 1}" if earlier else component.name
        live[name] = _Live(component, building.build_callback(component))
    methods = {
        point: tuple(each.method(point) for each in live.values() if hasattr(each.callback, point)) for point in POINTS
    }
    return Callbacks(live, **methods)


def check_evaluations(components: Sequence[Callback], trajectories: int) -> None:
    """Raises ConfigError for a callback that goes by evaluations where no trajectories are there to go by."""
    for index, component in enumerate(components):
        if component.needs_evaluation and trajectories == 0:
            raise ConfigError(
                f"callbacks[{index}]: '{component.name}' goes by evaluations in training, and there are no validation "
                "data; hold some of the training data out with data.validation"
            )
