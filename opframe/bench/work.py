"""The work of a call, counted: free of noise, and the same on every machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

Call = Callable[[], object]


@frozen(kw_only=True)
class Work:
    """What a call does.

    `flops` are those of matrix products and convolutions, a multiplication and an addition being two; `kernels` the
    operations that torch dispatches, but for views; `moved` the bytes that these read and write, if nothing stays in
    a cache; `memory` the most bytes that are allocated at a time beyond those that were before.
    """

    flops: int
    kernels: int
    moved: int
    memory: int


def count_work(call: Call, device: torch.device) -> Work:
    """Count the work of a call, which is made three times: the first time it may do what is done only once."""
    call()
    with FlopCounterMode(display=False) as flops, _Kernels() as kernels:
        call()
    return Work(
        flops=flops.get_total_flops(), kernels=kernels.count, moved=kernels.moved, memory=peak_memory(call, device)
    )


def peak_memory(call: Call, device: torch.device) -> int:
    """The most bytes of torch's allocator that a call needs at a time, beyond those in use before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _silent_profiler(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    results: Any = profiled.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    in_use = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        in_use += event.nbytes()
        peak = max(peak, in_use)
    return peak


@contextmanager
def _silent_profiler() -> Iterator[None]:
    """The profiler writes to the stream for errors that it starts and stops; no setting keeps it from that."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _Kernels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that are not views, and the bytes of their tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = self.moved = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        result = func(*args, **kwargs)
        if not func.is_view:
            self.count += 1
            self.moved += sum(tensor.nbytes for tensor in _tensors((*args, *kwargs.values(), result)))
        return result


def _tensors(values: Iterable[object]) -> Iterator[Tensor]:
    """The tensors among values, in lists too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
