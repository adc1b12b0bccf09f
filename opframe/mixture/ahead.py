"""Reading ahead by threads: the one place that knows torchdata.

What was found in the source of `torchdata.nodes` 0.11, and is relied on:

- A ParallelMapper is one thread that draws from the node below, `num_workers` that read, and one that sorts. All are
  daemons: a read that hangs keeps no process from ending. At most 2 * `num_workers` results wait or are being made.
- Who waits for a result is woken when it comes; the handler of a signal may raise meanwhile.
- To begin costs 10 ms, a sleep. To go on after a result costs nothing.
- It stops when the end of the node below has come through. Then its threads end within the 0.1 s between two looks.
  To delete it would stop it as well, but waits half a second for each thread, and may come late: a Loader and its
  iterator refer to each other, and the traceback of an exception to both. It is therefore read to its end.
- An exception of a read is made anew from its text, and no end follows one of the node below, so that the next call
  would wait for ever. Here both are values until they reach who asked.
- A thread keeps its last result until it has the next. Results therefore come in boxes, which are emptied.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

from attrs import define, field
from torchdata.nodes import BaseNode, Loader, ParallelMapper

Item = TypeVar("Item")
Result = TypeVar("Result")
Given = Callable[[int], Item]
"""What is to be read at a step."""
Unwanted = Callable[[], bool]
"""Whether results are not wanted any more."""

_PATIENCE = 1.0
"""Seconds that closing waits for reads under way. One that hangs is left to its thread."""


def read_ahead(
    steps: range, given: Given[Item], read: Callable[[Item, Unwanted], Result], workers: int
) -> Generator[Result]:
    """What `read` makes of every step, in order: when it is asked for, or ahead of time by `workers` threads.

    One thread at a time calls `given`, several call `read`, which may return anything once results are unwanted.
    Raises what these raise, after the results before. Closing the generator, an exception, and its end all end the
    threads: a moment after the reads under way, which are waited for, a second at most.
    """
    closing = threading.Event()
    stream: Iterator[_Box[Result]] = iter(())
    try:
        stream = iter(_nodes(StepsNode(steps, given, closing.is_set), read, workers))
        for box in stream:
            yield box.take()
    finally:
        closing.set()
        _use_up(stream)


def _use_up(stream: Iterator[object]) -> None:
    """Let an iterator come to its end, in a thread of its own. No thread can begin where the interpreter ends."""
    if not sys.is_finalizing():
        rest = threading.Thread(target=deque, args=(stream, 0), name="closing", daemon=True)
        rest.start()
        rest.join(_PATIENCE)


class StepsNode(BaseNode):  # type: ignore[misc]  # torchdata has no types
    """What is given at each step, in a box. Its state is the next step. It ends early when it is unwanted."""

    def __init__(self, steps: range, given: Given[Any], unwanted: Unwanted) -> None:
        super().__init__()
        self.unwanted = unwanted
        self._steps, self._given = steps, given
        self._next = steps.start

    def reset(self, initial_state: dict[str, int] | None = None) -> None:
        """Begin anew, or where a state says."""
        super().reset(initial_state)
        self._next = initial_state["step"] if initial_state else self._steps.start

    def next(self) -> _Box[Any]:
        """What is given at the next step; an exception is the last that comes."""
        if self._next >= self._steps.stop or self.unwanted():
            raise StopIteration
        box = _boxed(self._given, self._next)
        self._next = self._steps.stop if box.error else self._next + 1
        return box

    def get_state(self) -> dict[str, int]:
        """The next step."""
        return {"step": self._next}


@define
class _Box(Generic[Result]):
    """What a call gave, or the exception that it ended with, until it is taken out."""

    contents: list[Result] = field(factory=list)
    error: BaseException | None = None

    def take(self) -> Result:
        """Take it out. Raises the exception."""
        if self.error is None:
            return self.contents.pop()
        error, self.error = self.error, None
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame


def _boxed(call: Callable[..., Result], *arguments: Any) -> _Box[Result]:
    try:
        return _Box([call(*arguments)])
    except BaseException as error:  # in a thread that ends nobody would ever see it
        return _Box(error=error)


def _nodes(source: StepsNode, read: Callable[[Any, Unwanted], Result], workers: int) -> Loader:
    """What is read of what the source gives; nothing, once that is unwanted."""

    def reading(box: _Box[Any]) -> _Box[Result]:
        return _Box() if source.unwanted() else _boxed(lambda: read(box.take(), source.unwanted))

    mapper = ParallelMapper(source, reading, num_workers=workers, method="thread", in_order=True, snapshot_frequency=1)
    return Loader(mapper, restart_on_stop_iteration=False)
