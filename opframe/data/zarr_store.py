"""Zarr groups and arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from opframe.data.remote.retries import redacted
from opframe.data.storage import NoArrayError, explained, is_local, local_path, missing
from opframe_registry import DataError

if TYPE_CHECKING:
    from opframe.data.stores import Array


class ZarrStore:
    """A Zarr group, or one array under the path ''. Remote ones are read through fsspec, chunk by chunk."""

    def __init__(self, url: str) -> None:
        title = redacted(url)
        try:
            import zarr
        except ImportError as error:
            raise DataError(f'{title}: Zarr is read by the package zarr; pip install "opframe[zarr]"') from error
        self._title = title
        self._arrays: dict[str, Array] = {}  # what an array is like is read once, not for every window
        with explained(url, "cannot be read as Zarr; damaged?"):
            try:
                place = local_path(url) if is_local(url) else zarr.storage.FsspecStore.from_url(url, read_only=True)
                self._root = zarr.open(place, mode="r")
            except FileNotFoundError as error:
                raise DataError(f"{title}: no Zarr array or group is there") from error

    def array(self, path: str) -> Array:
        if path not in self._arrays:
            with explained(self._title, "cannot be read as Zarr; damaged?"):
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
        members = self._root.members(max_depth=None)
        return ", ".join(sorted(name for name, item in members if isinstance(item, zarr.Array))) or "nothing"

    def close(self) -> None:
        """Chunks are opened one at a time, as they are read."""
