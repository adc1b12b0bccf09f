"""Arrays of a remote HDF5 file, read window by window with about one request each."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, TypeVar

import h5py
import numpy as np
from attrs import define, field, frozen

from opframe.files.cache import RemoteCache
from opframe.files.file import RemoteFile
from opframe.files.refusal import on_refusal, once_more
from opframe.files.retries import redacted
from opframe.files.transport import Identity
from opframe.readers.remote_index import Index
from opframe.readers.remote_layout import Array, Layout, Plan, find_layout
from opframe.readers.remote_selection import Key, Selection
from opframe_registry import DataError

_Answer = TypeVar("_Answer")

_LAYOUTS = 1024  # held in memory for each file; the others are looked up again on disk


class _Session:
    """What one process has open of a file: its connection, and where its datasets lie."""

    def __init__(self, url: str, cache: RemoteCache, versions: dict[str, Identity]) -> None:
        self.process = os.getpid()
        self.lock = threading.Lock()
        self.file = RemoteFile(url, cache, versions)
        self.index = Index(self.file)
        self.layouts: dict[str, Layout] = {}

    def forget(self) -> None:
        """Look everything up anew."""
        with self.lock:
            self.layouts.clear()
        self.index.forget()


@define
class RemoteHdf5:
    """A remote HDF5 file, opened when something is asked of it. It may be pickled and shared by threads.

    All that is read belongs to one version of the file, also in other processes that it is sent to; `versions` holds
    it, and may be shared with what reads other files.
    """

    url: str = field(repr=redacted)
    cache: RemoteCache
    versions: dict[str, Identity] = field(factory=dict, repr=False, eq=False)
    _session: _Session | None = field(default=None, init=False, repr=False, eq=False)

    def __getstate__(self) -> tuple[Any, ...]:
        """Connections stay behind; which version of the file is read goes along."""
        return (self.url, self.cache, self.versions)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.url, self.cache, self.versions = state
        self._session = None

    def array(self, path: str) -> RemoteArray:
        """The dataset at a path. Raises DataError if there is none that can be read."""
        self.layout(path)
        return RemoteArray(self, path)

    def ask(self, question: Callable[[h5py.File], _Answer], name: str) -> _Answer:
        """The answer to a question that may be asked several times over, in which nothing of h5py may be left.

        What is read for it is kept on disk under a name. Raises DataError, and whatever the question raises.
        """
        return self._opened().index.ask(question, name)

    def names(self, group: str = "/") -> tuple[str, ...]:
        """The names of what a group holds. Raises DataError."""

        def names(file: h5py.File) -> tuple[str, ...]:
            found = file.get(group)
            if not isinstance(found, h5py.Group):
                raise DataError(f"{redacted(self.url)}: has no group '{group}'")
            return tuple(found)

        return self._opened().index.ask(names, f"names {group}")

    def attributes(self, path: str = "/") -> dict[str, Any]:
        """The attributes of a group or a dataset. Raises DataError."""

        def attributes(file: h5py.File) -> dict[str, Any]:
            if path not in file:
                raise DataError(f"{redacted(self.url)}: has no '{path}'")
            return dict(file[path].attrs)

        return self._opened().index.ask(attributes, f"attributes {path}")

    def layout(self, path: str) -> Layout:
        """Where a dataset lies; looked up once. Raises DataError."""
        session = self._opened()
        on_refusal(session.forget)
        found = session.layouts.get(path)
        if found is None:
            title = f"{redacted(self.url)}: '{path}'"
            found = session.index.ask(lambda file: find_layout(file, path, title, session.index.ask), f"layout {path}")
            with session.lock:
                while len(session.layouts) >= _LAYOUTS:
                    del session.layouts[next(iter(session.layouts))]
                session.layouts[path] = found
        return found

    def read(self, wanted: Sequence[tuple[str, Key]]) -> list[Array]:
        """Selections of datasets, each a path and what stands in the brackets, all fetched at the same time.

        Raises DataError, where chunks cannot be decoded when fetched anew either; IndexError if a selection does not
        fit.
        """
        return once_more(lambda: self._read(wanted))

    def _read(self, wanted: Sequence[tuple[str, Key]]) -> list[Array]:
        layouts = [self.layout(path) for path, _ in wanted]
        selections = [Selection.of(key, layout.shape) for layout, (_, key) in zip(layouts, wanted, strict=True)]
        plans = [
            layout.plan(selection) if 0 not in selection.shape else _nothing(selection, layout)
            for layout, selection in zip(layouts, selections, strict=True)
        ]
        contents = iter(self._opened().file.fetch([extent for plan in plans for extent in plan.ranges]))
        arrays = [plan.finish(list(islice(contents, len(plan.ranges)))) for plan in plans]
        return [selection.without_dropped(array) for selection, array in zip(selections, arrays, strict=True)]

    def close(self) -> None:
        """Forget connection and index; the next call opens the same version again."""
        self._session = None

    def _opened(self) -> _Session:
        """Neither connections nor locks survive a fork."""
        session = self._session
        if session is None or session.process != os.getpid():
            session = _Session(self.url, self.cache, self.versions)
            session.file.identity  # noqa: B018  # from here on it is this version, wherever the file is sent
            self._session = session
        return session


def _nothing(selection: Selection, layout: Layout) -> Plan:
    return Plan([], lambda contents: np.empty(selection.shape, layout.dtype))


@frozen
class RemoteArray:
    """A dataset of a remote file. Reading gives arrays of one's own; slices may step, but not backwards."""

    file: RemoteHdf5
    path: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        return self.file.layout(self.path).shape

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The type of its elements."""
        return self.file.layout(self.path).dtype

    @property
    def attrs(self) -> dict[str, Any]:
        """Its attributes."""
        return self.file.attributes(self.path)

    def __getitem__(self, key: Key) -> Array:
        """Some of its elements, all requests at the same time. Raises DataError; IndexError if `key` does not fit."""
        return self.file.read([(self.path, key)])[0]
