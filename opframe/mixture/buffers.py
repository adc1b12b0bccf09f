"""Memory of batches that is used again."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Memory = Callable[[tuple[int, ...]], Tensor]
"""Gives float32 tensors of a shape and of any content."""


def page_locked(shape: tuple[int, ...]) -> Tensor:
    """Memory that a GPU reads by itself. torch keeps it for the next time, and waits for copies under way."""
    return torch.empty(shape, pin_memory=True)


class Buffers:
    """Float32 tensors in main memory. Their memory is used again when nothing refers to it any more.

    Fresh memory costs a page fault for every 4 KB, which takes longer than filling it. It is never taken from under a
    tensor: it comes back when the last view of it is gone. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._free: deque[NDArray[np.float32]] = deque()

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """A tensor of any content, in memory that nothing else refers to."""
        size = math.prod(shape)
        memory = self._memory(size)
        lent = memory[:size].reshape(shape)
        weakref.finalize(lent, self._free.append, memory).atexit = False
        return torch.from_numpy(lent)

    def _memory(self, size: int) -> NDArray[np.float32]:
        """Free memory that suffices, or fresh one; what is too small is given up."""
        while self._free:
            try:
                memory = self._free.pop()  # the one that is freshest in the cache
            except IndexError:  # another thread was faster
                break
            if len(memory) >= size:
                return memory
        return np.empty(size, np.float32)
