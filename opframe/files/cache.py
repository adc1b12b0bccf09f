"""What all remote files of a process share: the folder on disk, the connections, the counters."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from attrs import asdict, define, evolve, field, frozen
from attrs.validators import ge, gt

from opframe.files.retries import Retries
from opframe.files.store import Store

_One = TypeVar("_One")
_Result = TypeVar("_Result")


@frozen(kw_only=True)
class Counters:
    """What this process has read: requests sent and bytes received, tries that were repeated, blocks found on disk."""

    requests: int = 0
    bytes: int = 0
    retries: int = 0
    hits: int = 0
    misses: int = 0

    def __sub__(self, earlier: Counters) -> Counters:
        """What came since."""
        return Counters(**{name: amount - getattr(earlier, name) for name, amount in asdict(self).items()})


class _Shared:
    """Threads and counters of one process."""

    def __init__(self, connections: int) -> None:
        self.process = os.getpid()
        self.threads = ThreadPoolExecutor(connections, thread_name_prefix="opframe-remote")
        self.lock = threading.Lock()
        self.counters = Counters()


@define(kw_only=True)
class RemoteCache:
    """A folder for what was read from remote files, with a limit in bytes, and the ways to read.

    The index of every file (kilobytes for each dataset) is always kept. Data is kept of files that are not larger
    than `limit`, in blocks, those not used for longest go first; 0 keeps none. Of a file that does not fit, random
    windows would find hardly anything again, while all that is read would also be written to the disk: so a job on
    100 GB runs without, and the small sets of a mixture are local after their first epoch.

    `connections` is how many requests a process has under way at most, beside one for each thread that reads;
    `timeout` how many seconds one over HTTP may take (other filesystems have their own).
    Any number of processes may use the same folder. Credentials are not kept: names are hashes.
    """

    folder: Path
    limit: int = field(default=10 * 2**30, validator=ge(0))
    connections: int = field(default=16, validator=gt(0))
    timeout: float = field(default=60.0, validator=gt(0))
    retries: Retries = field(factory=Retries)
    _index: Store = field(init=False, repr=False, eq=False)
    _blocks: Store = field(init=False, repr=False, eq=False)
    _shared: _Shared | None = field(default=None, init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        self._index = Store(self.folder / "index")
        self._blocks = Store(self.folder / "blocks", limit=self.limit)

    def __getstate__(self) -> tuple[Any, ...]:
        """Threads and counters stay behind."""
        return (self.folder, self.limit, self.connections, self.timeout, self.retries, self._index, self._blocks)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        (self.folder, self.limit, self.connections, self.timeout, self.retries, self._index, self._blocks) = state
        self._shared = None

    @property
    def index(self) -> Store:
        """What HDF5 needs to know of the files."""
        return self._index

    @property
    def blocks(self) -> Store:
        """Data."""
        return self._blocks

    @property
    def counters(self) -> Counters:
        """What this process has read so far."""
        return self._of_this_process().counters

    def keeps(self, size: int) -> bool:
        """Whether the data of a file of this size is kept."""
        return size <= self.limit

    def count(self, **amounts: int) -> None:
        """Add to counters by their names."""
        shared = self._of_this_process()
        with shared.lock:
            now = shared.counters
            shared.counters = evolve(now, **{name: getattr(now, name) + amount for name, amount in amounts.items()})

    def concurrently(self, action: Callable[[_One], _Result], items: Iterable[_One]) -> list[_Result]:
        """The action's results, in the order of the items; a single one is done in this thread."""
        items = list(items)
        if len(items) == 1:
            return [action(items[0])]
        return list(self._of_this_process().threads.map(action, items))

    def _of_this_process(self) -> _Shared:
        """Neither threads nor locks survive a fork."""
        shared = self._shared
        if shared is None or shared.process != os.getpid():
            shared = self._shared = _Shared(self.connections)
        return shared


def cache_folder() -> Path:
    """Where what can be made or fetched again is kept: OPFRAME_CACHE or ~/.cache/opframe."""
    return Path(os.environ.get("OPFRAME_CACHE", "~/.cache/opframe")).expanduser()


@contextmanager
def patient(seconds: float) -> Iterator[None]:
    """A context in which servers that are away are waited for so long."""
    cache = remote_cache()
    before = cache.retries
    cache.retries = evolve(before, patience=seconds)
    try:
        yield
    finally:
        cache.retries = before


@cache
def remote_cache() -> RemoteCache:
    """What this process keeps of remote files; connections are shared."""
    return RemoteCache(folder=cache_folder() / "remote")
