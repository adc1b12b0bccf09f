"""Chunks of remote Zarr data: fetched through fsspec by zarr itself, and tried again as all that is remote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from functools import partial
from typing import TypeVar

from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import FsspecStore

from opframe.files.cache import RemoteCache
from opframe.files.refusal import on_refusal
from opframe.files.retries import WrongAnswerError
from opframe.files.transport import filesystem_options

_Answer = TypeVar("_Answer")


class RetriedStore(FsspecStore):
    """A store of zarr's that is only read. What it asks for is counted, and tried again when a failure may pass.

    Of chunks nothing is kept: each is an object of its own, which is fetched as a whole, or, if it holds several, in
    ranges whose length is verified.
    """

    cache: RemoteCache
    url: str

    @classmethod
    def open_url(cls, url: str, cache: RemoteCache) -> RetriedStore:
        """The store at a URL. Raises what fsspec raises."""
        store = cls.from_url(url, storage_options=filesystem_options(url), read_only=True)
        assert isinstance(store, cls)
        store.url, store.cache = url.rstrip("/"), cache
        return store

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """What is stored under a key, or a range of it; None: nothing. Raises DataError."""
        fetch = partial(super().get, key, prototype, byte_range)

        async def checked() -> Buffer | None:
            self.cache.count(requests=1)
            found = await fetch()
            self.cache.count(bytes=0 if found is None else len(found))
            wanted = _length(byte_range)
            if found is not None and wanted is not None and len(found) != wanted:
                raise WrongAnswerError(f"{len(found)} bytes came of {wanted}")
            return found

        found = await self._again(key, checked)
        on_refusal(_nothing_is_kept)
        return found

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """What `get` gives for each. Raises DataError."""
        return list(await asyncio.gather(*(self.get(key, prototype, extent) for key, extent in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is such a key: it is read, as fsspec takes an HTTP server that fails for one without it."""
        return await self.get(key, default_buffer_prototype()) is not None

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """The names below a prefix. Raises DataError."""
        names = partial(super().list_dir, prefix)

        async def listed() -> list[str]:
            return [name async for name in names()]

        for name in await self._again(prefix, listed):
            yield name

    async def _again(self, key: str, question: Callable[[], Coroutine[None, None, _Answer]]) -> _Answer:
        """The answer to a question, in whose waiting a thread stands so that the loop of zarr goes on."""
        loop, place = asyncio.get_running_loop(), f"{self.url}/{key}"
        ask = lambda: asyncio.run_coroutine_threadsafe(question(), loop).result()  # noqa: E731
        carry_out = self.cache.retries.carry_out
        return await asyncio.to_thread(carry_out, place, ask, lambda: self.cache.count(retries=1))


def _length(extent: ByteRequest | None) -> int | None:
    """How many bytes are asked for, where that is known."""
    if isinstance(extent, RangeByteRequest):
        return extent.end - extent.start
    return extent.suffix if isinstance(extent, SuffixByteRequest) else None


def _nothing_is_kept() -> None:
    """What is refused is fetched anew without more ado."""
