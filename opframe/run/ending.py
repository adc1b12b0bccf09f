"""How training ends before its last step: after a signal or at a callback's word, in all processes at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field, frozen

from opframe.evaluation.scores import Report
from opframe.processes import ElsewhereError, Processes
from opframe.signals import Interrupted
from opframe_registry import OpframeError

Answer = Callable[[], tuple[bool, ...]]
"""Whether any process is to be interrupted, whether one wants to stop training for good, whether one knows that it
cannot go on, and whether one wants to go back."""


@define(kw_only=True)
class Ending:
    """What is known of the end of training.

    `stop` and `interrupt` are the words of callbacks of this process. What all processes have agreed on is whether
    training is over, `stopped` with the words of the callback that ended it for good, and `interruption` with those of
    one that ended the process as if there had been a `signal`. `error` is what keeps this process from the next step,
    and `failed` that there is one, here or in another process; `back` is why a callback wants to go back to a
    checkpoint, and `rolled_back` that all do.
    """

    processes: Processes
    stopped: str | None = None
    stop: str | None = None
    interrupt: str | None = None
    signal: int | None = None
    interruption: str = ""
    error: OpframeError | None = None
    failed: bool = False
    back: str | None = None
    rolled_back: bool = False
    over: bool = field(init=False)
    _idle: bool = field(default=False, init=False)

    @over.default
    def _is_over(self) -> bool:
        return self.stopped is not None

    def hear(self, number: int) -> None:
        """Take a signal. Raises Interrupted where nothing would be lost."""
        self.signal = number
        if self._idle:
            self.end_if_interrupted()

    def ask(self) -> Answer:
        """Ask all processes; the answer, which waits for the others, is for `agree`."""
        interrupted = self.signal is not None or self.interrupt is not None
        return self.processes.ask_any(interrupted, self.stop is not None, self.error is not None, self.back is not None)

    def agree(self, answer: Answer, last: bool) -> None:
        """End training where the answer says so; what was to be stopped at the last step has only come to its end."""
        interrupted, stopped, failed, back = answer()
        if stopped and self.stopped is None and not last:
            self.stopped = self.processes.first_words(self.stop or "")
            self.over = True
        if interrupted or (self.signal is not None and self.processes.count == 1):
            self.interruption = self.processes.first_words(self.interrupt or "")
            self.signal = self.signal or signal.SIGTERM  # which another process was sent
            self.over = True
        if failed and not self.over:
            self.failed = self.over = True
        if back and not self.over:
            self.rolled_back = self.over = True

    def raise_error(self) -> None:
        """Raises what keeps one of the processes from the next step: ElsewhereError in the others."""
        if self.failed:
            raise self.error or ElsewhereError("another process cannot go on")

    def end_if_interrupted(self) -> None:
        """Raises Interrupted after a signal. For where nothing that is saved is being changed."""
        if self.signal is not None and self.processes.count == 1:  # several have to agree first
            raise Interrupted(self.signal)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """For what changes nothing that is saved. Raises Interrupted as soon as a signal comes, or if one has come."""
        self._idle = True
        try:
            self.end_if_interrupted()
            yield
        finally:
            self._idle = False


@frozen(kw_only=True)
class Outcome:
    """How training ended, and the report of a run that was not interrupted.

    `signal` ended the process, or a callback did as if there had been one: `interruption` has its words. `stopped` are
    those with which a callback ended training for good, `rolled_back` those with which one goes back to a checkpoint.
    `said` is what callbacks have said in the end.
    """

    step: int
    interrupted: bool
    signal: int | None = None
    interruption: str = ""
    stopped: str | None = None
    rolled_back: str | None = None
    said: tuple[str, ...] = ()
    report: Report | None = None
