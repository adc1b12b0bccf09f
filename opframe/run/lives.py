"""One life of the processes that train together: torchrun may begin them again, with the store that they had before."""

from __future__ import annotations

import json
import time
import uuid

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

_LOOK = 0.05
"""Seconds between two looks at the store."""


def of_this_life(store: Store, rank: int, count: int, timeout: float) -> Store:
    """The part of a store that belongs to the processes of now; all of them ask for it.

    What those of an earlier life have left is never taken for what is said now. Counting lives would not do, as a
    process may end before it counts. So each says a name that it makes up; the first one repeats all names until every
    process has found its own among them, and its own name is that of the life. Raises TimeoutError where some do not
    come.
    """
    mine, deadline = uuid.uuid4().hex, time.monotonic() + timeout
    store.set(f"opframe/joins {rank}", mine)
    life = _gathered(store, mine, count, deadline) if rank == 0 else _found(store, mine, rank, deadline)
    return PrefixStore(f"opframe/life {life}", store)


def _gathered(store: Store, mine: str, count: int, deadline: float) -> str:
    """Say who is there, until all have seen it."""
    while True:
        there = [rank for rank in range(count) if store.check([f"opframe/joins {rank}"])]
        names = {rank: store.get(f"opframe/joins {rank}").decode() for rank in there}
        missing = [rank for rank in range(1, count) if not store.check([f"opframe/{mine} {names.get(rank)}"])]
        if not missing:
            return mine
        store.set("opframe/life", json.dumps({"life": mine, "names": sorted(names.values())}))
        if time.monotonic() > deadline:
            late = ", ".join(map(str, missing))
            raise TimeoutError(f"of {count} processes these have not come within trainer.timeout: {late}")
        time.sleep(_LOOK)


def _found(store: Store, mine: str, rank: int, deadline: float) -> str:
    """Wait until the first process knows of this one."""
    while True:
        said = json.loads(store.get("opframe/life")) if store.check(["opframe/life"]) else {"names": ()}
        if mine in said["names"]:
            store.set(f"opframe/{said['life']} {mine}", "")
            return str(said["life"])
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {rank} has waited for the first one in vain (trainer.timeout)")
        time.sleep(_LOOK)
