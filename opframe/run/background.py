"""Writing a checkpoint while training goes on, by torch.distributed.checkpoint's own threads."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed as dist
from attrs import define, field
from torch.distributed.checkpoint.state_dict_saver import async_save

from opframe.processes import Processes


@define
class Background:
    """At most one checkpoint that is being written, from a copy of the state in main memory.

    The threads exchange what they have to in a group of processes of their own: training does not wait for them.
    """

    _processes: Processes
    _group: Any = field(default=None, init=False)
    _writing: Future[float] | None = field(default=None, init=False)

    def begin(self, state: dict[str, Any], folder: Path, finish: Callable[[], None]) -> None:
        """Copy the state, and write the copy into a folder; then `finish` is called, in another thread.

        The one before is to have been waited for.
        """
        alone = self._processes.count == 1
        if not alone and self._group is None:
            self._group = dist.new_group(backend="gloo")
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # in a thread, later
        known = inspect.signature(async_save).parameters  # torch 2.6 has not all of them
        options: dict[str, Any] = {"no_dist": alone} if "no_dist" in known else {}
        begun = time.monotonic()
        written: Any = async_save(state, checkpoint_id=folder, process_group=self._group, **options)
        executor = ThreadPoolExecutor(1, "checkpoint")
        self._writing = executor.submit(_complete, written, finish, begun)
        executor.shutdown(wait=False)

    def wait(self) -> tuple[float | None, BaseException | None]:
        """The seconds that the last one took since it began, and what went wrong with it; None: there is none."""
        writing, self._writing = self._writing, None
        if writing is None:
            return None, None
        error = writing.exception()
        return (None, error) if error is not None else (writing.result(), None)

    @property
    def busy(self) -> bool:
        """Whether one has been begun and not been waited for."""
        return self._writing is not None


def _complete(written: Future[Any], finish: Callable[[], None], begun: float) -> float:
    written.result()
    finish()
    return time.monotonic() - begun
