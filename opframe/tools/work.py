"""Many like tasks, done here, by processes of this machine, or by a Dask cluster."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from attrs import frozen

from opframe.signals import end_with_parent, held_back
from opframe_registry import ConfigError, DataError

R = TypeVar("R")
_AHEAD = 4  # tasks handed to each worker in advance
_PATIENCE = 30  # seconds in which a scheduler answers and has a worker


@frozen(kw_only=True)
class Pool:
    """Workers, of which each does one task at a time."""

    executor: Executor
    workers: int


def done_by(pool: Pool | None, do: Callable[..., R], tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, R]]:
    """Each task's place and result, in the order of completion; without a pool, one after another.

    Workers get a few tasks in advance, so that memory does not grow with their number.
    """
    if pool is None:
        yield from ((place, do(*task)) for place, task in enumerate(tasks))
        return
    waiting: dict[Future[R], int] = {}
    left = iter(enumerate(tasks))
    try:
        while True:
            with held_back():  # the first task may start processes, which a signal would find half begun
                for place, task in islice(left, _AHEAD * pool.workers - len(waiting)):
                    waiting[pool.executor.submit(do, *task)] = place
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()
    finally:
        for future in waiting:
            future.cancel()


@contextmanager
def processes(count: int) -> Iterator[Pool | None]:
    """Processes of this machine; of one, none, as this one can do it.

    Processes, not threads: HDF5 decompresses under one lock. They are spawned, as open HDF5 files do not survive a
    fork.
    """
    if count <= 1:
        yield None
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=spawn, initializer=end_with_parent) as executor:
        try:
            yield Pool(executor=executor, workers=count)
        except BaseException:  # nobody waits any more for what they are at
            for child in multiprocessing.active_children():
                child.kill()
            raise
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


@contextmanager
def cluster(address: str) -> Iterator[Pool]:
    """The workers of a Dask cluster, by the address of its scheduler. Raises ConfigError where there is none.

    They have to have opframe, its plugins and the same files under the same paths.
    """
    try:
        from dask.distributed import Client
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise ConfigError(f"--dask needs the package distributed ({error}): pip install 'opframe[dask]'") from error
    try:
        client: Any = Client(address, timeout=_PATIENCE)  # type: ignore[no-untyped-call,unused-ignore]
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"--dask {address}: no scheduler can be reached there ({error})") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except (OSError, TimeoutError) as error:
            raise ConfigError(f"--dask {address}: its scheduler has no worker; start some with dask worker") from error
        try:
            yield Pool(executor=client.get_executor(pure=False), workers=sum(client.nthreads().values()))
        except KilledWorker as error:
            raise DataError(f"--dask {address}: workers died again and again at one task ({error})") from error
