"""The processes that train together, and the few questions that are asked of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from attrs import frozen

from opframe_registry import OpframeError

Value = TypeVar("Value")
_OF_GLOO = ("gloo", "pair closure", "closed by peer")
"""What its errors say, for which torch has no class of its own."""


class ElsewhereError(OpframeError):
    """Another process has an error, which it says itself; this one ends without a word."""


def is_of_another(error: BaseException) -> bool:
    """Whether processes could not exchange anything, which is the fault of one that is gone or hangs."""
    by_gloo = isinstance(error, RuntimeError | TimeoutError) and any(words in str(error) for words in _OF_GLOO)
    return by_gloo or isinstance(error, dist.DistError)


@frozen(kw_only=True)
class Processes:
    """This process among those that train together.

    They wait for each other as long as a process may be busy in a step, and no longer. `await_leader` is for what the
    leading one alone does, which may take hours: it returns when that has called it, too.
    """

    rank: int
    count: int
    device: torch.device
    await_leader: Callable[[], None] = lambda: None
    questions: dist.ProcessGroup | None = None
    """Those in which `ask_any` asks (default: all, in the usual way)."""

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            dist.barrier()

    def wait_for_leader(self) -> None:
        """Wait for all processes, as long as the leading one needs."""
        self.await_leader()
        self.wait()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return self.sum(torch.tensor([float(flag)])).item() > 0

    def ask_any(self, *flags: bool) -> Callable[[], tuple[bool, ...]]:
        """Ask which flags are set in any process; the answer, which waits for the others, is to be called for."""
        if self.count == 1:
            return lambda: flags
        sums = torch.tensor([float(flag) for flag in flags])
        exchange = dist.all_reduce(
            sums, group=self.questions, async_op=True
        )  # in main memory, so that no GPU is waited for

        def answer() -> tuple[bool, ...]:
            exchange.wait()
            return tuple(total > 0 for total in sums.tolist())

        return answer

    def let_leader(self, call: Callable[[], Value]) -> Value:
        """What a call gives in the leading process, in all of them; it pickles.

        Where it raises OpframeError there, ElsewhereError is raised in the others.
        """
        if self.count == 1:
            return call()
        error: OpframeError | None = None
        answers: list[Any] = []
        if self.leads:
            try:
                answers = [call()]
            except OpframeError as refusal:
                error = refusal
        self.await_leader()
        answers = self.from_leader(answers)
        if error is not None:
            raise error
        if not answers:
            raise ElsewhereError("the leading process has an error")
        answer: Value = answers[0]
        return answer

    def first_words(self, words: str) -> str:
        """The words of the first process that has any."""
        if self.count == 1:
            return words
        every: list[str | None] = [None] * self.count
        dist.all_gather_object(every, words)
        return next((said for said in every if said), "")

    def from_leader(self, value: Value) -> Value:
        """What the leading process has, in all of them; it pickles."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        if self.count == 1:
            return values
        values = values.to(self.device)
        dist.all_reduce(values)
        return values
