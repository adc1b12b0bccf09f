"""Zarr groups and arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from opframe.files.cache import remote_cache
from opframe.files.location import NoArrayError, explained, is_local, local_path, missing
from opframe.files.retries import redacted
from opframe_registry import DataError

if TYPE_CHECKING:
    import zarr

    from opframe.readers.stores import Array, Wanted

_Answer = TypeVar("_Answer")

_DAMAGED = "cannot be read as Zarr; damaged?"


def open_root(url: str) -> zarr.Array[Any] | zarr.Group:
    """The group or array at a path or URL. Raises DataError without the package zarr, and whatever that raises."""
    try:
        import zarr
    except ImportError as error:
        title = redacted(url)
        raise DataError(f'{title}: Zarr is read by the package zarr; pip install "opframe[zarr]"') from error
    if is_local(url):
        return zarr.open(local_path(url), mode="r")
    from opframe.readers.remote_zarr import RetriedStore

    return zarr.open(RetriedStore.open_url(url, remote_cache()), mode="r")


class ZarrStore:
    """A Zarr group, or one array under the path ''. Remote ones are read through fsspec, chunk by chunk."""

    def __init__(self, url: str) -> None:
        self._title = title = redacted(url)
        self._arrays: dict[str, Array] = {}  # what an array is like is read once, not for every window
        with explained(url, _DAMAGED):
            try:
                self._root = open_root(url)
            except FileNotFoundError as error:
                raise DataError(f"{title}: no Zarr array or group is there") from error

    def shapes(self, limit: int) -> dict[str, tuple[int, ...]]:
        import zarr

        if isinstance(self._root, zarr.Array):
            return {"": self._root.shape}
        with explained(self._title, _DAMAGED):
            return {path: self.array(path).shape for path in _paths(self._root)[:limit]}

    def array(self, path: str) -> Array:
        if path not in self._arrays:
            with explained(self._title, _DAMAGED):
                self._arrays[path] = self._find(path)
        return self._arrays[path]

    def _find(self, path: str) -> Array:
        import zarr

        if isinstance(self._root, zarr.Group):
            found = self._root.get(path) if path else None
        else:
            found = None if path else self._root
        if not isinstance(found, zarr.Array):
            raise NoArrayError(f"{self._title}: {missing(path, 'array')}; found: {self._contents()}")
        return cast("Array", found)

    def _contents(self) -> str:
        import zarr

        if not isinstance(self._root, zarr.Group):
            return "one array, to be read without a path"
        return ", ".join(_paths(self._root)) or "nothing"

    def read(self, wanted: Sequence[Wanted]) -> list[NDArray[Any]]:
        return [np.asarray(self.array(path)[index]) for path, index in wanted]

    def ask(self, question: Callable[[str, Any], _Answer], name: str) -> _Answer:
        with explained(self._title, _DAMAGED):
            return question(self._title, self._root)

    def close(self) -> None:
        """Chunks are opened one at a time, as they are read."""


def _paths(group: zarr.Group) -> list[str]:
    """The paths of the arrays in a group."""
    import zarr

    members = group.members(max_depth=None)
    return sorted(name for name, item in members if isinstance(item, zarr.Array))
