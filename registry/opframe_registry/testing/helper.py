"""Another process, spawned for the first question and kept for the next ones."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Any, TypeVar

from attrs import define, field

Answer = TypeVar("Answer")


@define(eq=False)
class Helper:
    """Calls functions in a spawned process, which shares nothing with this one."""

    _pool: ProcessPoolExecutor | None = field(default=None, init=False)

    def call(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """What the function returns there. Its exceptions are raised here, BrokenProcessPool where the process dies."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        try:
            return self._pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            self.close()  # the next question gets a new process
            raise

    def close(self) -> None:
        """End the process, if there is one."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def __enter__(self) -> Helper:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
