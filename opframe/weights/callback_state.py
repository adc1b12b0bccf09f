"""States of callbacks, of any size and form, as they lie in checkpoints.

A checkpoint is read into what is there already, and a state has a form of its own. So its tensors are saved one by one
under numbers, and its form beside them, as JSON; the form is read first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from opframe.weights.checkpoints import read_record
from opframe.weights.stored import load_stored
from opframe_registry import PluginError


def taken_apart(name: str, state: Any) -> dict[str, Any]:
    """The form of a callback's state as JSON, and its tensors by number. Raises PluginError for what is neither."""
    tensors: list[Tensor] = []
    form = json.dumps(_form(state, tensors, name))
    return {"form": form, "tensors": {str(number): tensor for number, tensor in enumerate(tensors)}}


def read_states(path: Path, alone: bool) -> dict[str, Any]:
    """The states in a checkpoint, by the names of the callbacks, read by one process alone or by all together.

    Raises WeightsError naming the checkpoint, or RunError.
    """
    names = read_record(path).callbacks
    if not names:
        return {}
    forms = _loaded(path, {name: {"form": ""} for name in names}, alone)
    tensors = {name: fresh_tensors(forms[name]["form"]) for name in names}
    if any(tensors.values()):
        _loaded(path, {name: {"tensors": fresh} for name, fresh in tensors.items()}, alone)
    return {name: put_together(forms[name]["form"], tensors[name]) for name in names}


def _loaded(path: Path, callbacks: dict[str, Any], alone: bool) -> dict[str, Any]:
    state = {"callbacks": callbacks}
    load_stored(path, state, alone)
    return state["callbacks"]


def standing_for_weights(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The callback of a checkpoint that keeps what its weights are taken to be, and what it keeps; else no name.

    Raises WeightsError or RunError.
    """
    for name, state in read_states(path, alone=True).items():
        if isinstance(state, Mapping) and isinstance(state.get("weights"), Mapping):
            return name, dict(state["weights"])
    return "", {}


def put_together(form: str, tensors: Mapping[str, Tensor]) -> Any:
    """The state of a form and its tensors."""
    return _state(json.loads(form), lambda number, _shape, _type: tensors[number])


def fresh_tensors(form: str) -> dict[str, Tensor]:
    """What the tensors of a form are to be read into, in main memory."""
    tensors: dict[str, Tensor] = {}

    def make(number: str, shape: list[int], type_: str) -> Tensor:
        tensors[number] = torch.empty(shape, dtype=getattr(torch, type_))
        return tensors[number]

    _state(json.loads(form), make)
    return tensors


def _form(value: Any, tensors: list[Tensor], place: str) -> Any:
    """A value as JSON: words and numbers as they are, anything else as an object with one key that says what it is."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        tensors.append(value.detach())
        return {"tensor": [str(len(tensors) - 1), list(value.shape), str(value.dtype).removeprefix("torch.")]}
    if isinstance(value, Mapping):
        items = value.items()
        return {"mapping": [[_form(key, tensors, place), _form(it, tensors, f"{place}.{key}")] for key, it in items]}
    if isinstance(value, list | tuple):
        inside = [_form(item, tensors, f"{place}[{index}]") for index, item in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": inside}
    raise PluginError(
        f"the state of the callback {place} is of the type {type(value).__name__}, which cannot be saved; state_dict "
        "gives numbers, words, tensors, and lists, tuples and mappings of them"
    )


def _state(form: Any, tensor: Callable[[str, list[int], str], Tensor]) -> Any:
    """The value of a form, with its tensors from a function of number, shape and type."""
    if not isinstance(form, dict):
        return form
    ((kind, inside),) = form.items()
    if kind == "tensor":
        return tensor(*inside)
    if kind == "mapping":
        return {_state(key, tensor): _state(value, tensor) for key, value in inside}
    values = [_state(item, tensor) for item in inside]
    return values if kind == "list" else tuple(values)
