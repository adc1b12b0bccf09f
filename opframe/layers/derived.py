"""What is derived from weights alone, made once while the weights stay what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from attrs import frozen
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

Value = TypeVar("Value")


@frozen(kw_only=True, eq=False)
class _Made:
    """A value, and its sources as they were. Aliases keep the sources' memory from being used for something else."""

    value: Any
    sources: list[Tensor]
    aliases: list[Tensor]
    state: list[tuple[int, int]]


_KNOWN: ContextVar[dict[tuple[Any, ...], _Made] | None] = ContextVar("known", default=None)


@contextmanager
def constant_weights() -> Iterator[None]:
    """A context, such as a roll-out, in which networks need not look for what they derive from their weights again.

    Without gradients it is made once. It is kept by the context, not by the network, and gone when that ends. Weights
    that are trained, loaded, moved or copied within it are noticed all the same; what torch does not count as a change
    (writing to `weight.data` or through NumPy) is not.
    """
    known: dict[tuple[Any, ...], _Made] = {}
    token = _KNOWN.set(known)
    hook = register_optimizer_step_post_hook(lambda *_: known.clear())  # fused optimizers raise no version
    try:
        yield
    finally:
        hook.remove()
        _KNOWN.reset(token)


def derived(function: Callable[..., Value], *arguments: Any) -> Value:
    """function(*arguments), of weights and hashable values, remembered within `constant_weights`.

    The function is pure, and autocast makes no difference to it. Compiled, it is part of the graph.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return function(*arguments)
    known = _KNOWN.get()
    sources = [argument for argument in arguments if isinstance(argument, Tensor)]
    if known is None or any(source.is_inference() for source in sources):
        return function(*arguments)
    key = (function, *(id(argument) if isinstance(argument, Tensor) else argument for argument in arguments))
    state = [(source.data_ptr(), source._version) for source in sources]
    if key not in known or known[key].state != state:
        aliases = [source.detach() for source in sources]
        known[key] = _Made(value=function(*arguments), sources=sources, aliases=aliases, state=state)
    value: Value = known[key].value
    return value
