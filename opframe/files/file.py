"""The bytes of one remote file: many ranges at once, joined, cached, tried again."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from attrs import define, field

from opframe.files.cache import RemoteCache
from opframe.files.refusal import on_refusal
from opframe.files.transport import Identity, Transport, changed, open_transport

Range = tuple[int, int]  # from, to (not included)

# A request costs about 50 ms until its first byte. With 16 at a time that is 3 ms each, in which a connection of
# 80 MB/s brings 256 KiB: bytes between two ranges that are fewer than that are read along.
GAP = 256 * 2**10
# Longer ranges are split: one connection to an object store is slower than several, and less is lost by a failure.
PART = 16 * 2**20
# What is kept on disk is in blocks of this size, so that windows that overlap share what they have in common.
BLOCK = 256 * 2**10
_STREAMED = 4 * PART  # of a whole file, at a time


@define
class RemoteFile:
    """Reads ranges of a remote file as it was when it was first opened. Threads may share it, processes may not.

    `versions` holds the version of each URL that was opened before, as by the process that this one is a worker of.
    Then the server is asked only for what is not on disk.
    """

    url: str
    cache: RemoteCache
    versions: dict[str, Identity] = field(factory=dict, repr=False, eq=False)
    _transport: Transport | None = field(default=None, init=False)

    @property
    def identity(self) -> Identity:
        """Size and version; opens the file if they are not known. Raises DataError."""
        return self.versions.get(self.url) or self._opened().identity

    @property
    def kept(self) -> bool:
        """Whether what is read may stay on disk: only if a later version of the file would have another name."""
        return bool(self.identity.version)

    @property
    def place(self) -> str:
        """The URL without the user: who reads does not matter, and must not be guessed from a name in the cache."""
        return re.sub(r"://[^/@\s]*@", "://", self.url)

    def name(self, *parts: object) -> str:
        """The name in the cache of something of this version of the file."""
        return hashlib.sha256("\0".join(map(str, (self.place, self.identity, *parts))).encode()).hexdigest()

    def fetch(self, ranges: Sequence[Range]) -> list[memoryview]:
        """The bytes of each range, all requests at the same time. Raises DataError."""
        contents = self._fetch(ranges)
        on_refusal(lambda: self.forget(ranges))
        return contents

    def stream(self, start: int) -> Iterator[memoryview]:
        """All bytes from `start` on, in pieces over several connections, which are not kept. Raises DataError."""
        size = self.identity.size
        for place in range(start, size, _STREAMED):
            yield from self._fetch_extents([(place, min(place + _STREAMED, size))])

    def forget(self, ranges: Iterable[Range]) -> None:
        """Keep nothing of these bytes on disk."""
        for number in _blocks(ranges) if self.kept else ():
            self.cache.blocks.forget(self.name(number))

    def _fetch(self, ranges: Sequence[Range]) -> list[memoryview]:
        if self.kept and self.cache.keeps(self.identity.size):
            return self._fetch_blocks(ranges)
        extents = join(ranges)
        contents = self._fetch_extents(extents)
        first = [start for start, _ in extents]
        at = [bisect_right(first, start) - 1 for start, _ in ranges]
        return [
            contents[index][start - first[index] : stop - first[index]]
            for index, (start, stop) in zip(at, ranges, strict=True)
        ]

    def _fetch_blocks(self, ranges: Sequence[Range]) -> list[memoryview]:
        """From the blocks on disk; those that lack are fetched, neighbours in one request, and kept."""
        touched = [_touched(start, stop) for start, stop in ranges]
        blocks: dict[int, bytes | memoryview] = {}
        missing = []
        for number in sorted(_blocks(ranges)):
            found = self.cache.blocks.get(self.name(number))
            if found is None:
                missing.append(number)
            else:
                blocks[number] = found
        self.cache.count(hits=len(blocks), misses=len(missing))
        size = self.identity.size
        extents = join([(number * BLOCK, min((number + 1) * BLOCK, size)) for number in missing], gap=0)
        for (start, stop), content in zip(extents, self._fetch_extents(extents), strict=True):
            for place in range(start, stop, BLOCK):
                number = place // BLOCK
                blocks[number] = content[place - start : place - start + BLOCK]
                self.cache.blocks.put(self.name(number), bytes(blocks[number]))
        return [
            memoryview(b"".join(blocks[number] for number in numbers))[start - numbers[0] * BLOCK :][: stop - start]
            for numbers, (start, stop) in zip(touched, ranges, strict=True)
        ]

    def _fetch_extents(self, extents: Sequence[Range]) -> list[memoryview]:
        """The bytes of each extent; long ones in parts, all at the same time."""
        parts = [list(split(start, stop)) for start, stop in extents]
        answers = iter(self.cache.concurrently(self._request, [part for several in parts for part in several]))
        contents = [[next(answers) for _ in several] for several in parts]
        return [memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces)) for pieces in contents]

    def _request(self, part: Range) -> bytes:
        transport, (start, stop) = self._opened(), part

        def attempt() -> bytes:
            self.cache.count(requests=1)
            data = transport.fetch(start, stop)
            self.cache.count(bytes=len(data))
            return data

        return self.cache.retries.carry_out(self.url, attempt, self._failed)

    def _opened(self) -> Transport:
        transport = self._transport
        if transport is None:
            transport = self.cache.retries.carry_out(self.url, self._open, self._failed)
            expected = self.versions.setdefault(self.url, transport.identity)
            if expected != transport.identity:
                raise changed(self.url, expected, transport.identity)
            self._transport = transport
        return transport

    def _open(self) -> Transport:
        self.cache.count(requests=1)
        return open_transport(self.url, self.cache.timeout)

    def _failed(self) -> None:
        self.cache.count(retries=1)


def _touched(start: int, stop: int) -> range:
    """The numbers of the blocks that a range lies in."""
    return range(start // BLOCK, (stop - 1) // BLOCK + 1)


def _blocks(ranges: Iterable[Range]) -> set[int]:
    return {number for start, stop in ranges for number in _touched(start, stop)}


def join(ranges: Iterable[Range], gap: int = GAP) -> list[Range]:
    """The ranges in their order in the file, those with at most `gap` bytes between them as one."""
    joined: list[Range] = []
    for start, stop in sorted(ranges):
        if joined and start - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop))
        else:
            joined.append((start, stop))
    return joined


def split(start: int, stop: int) -> Iterable[Range]:
    """A range in parts that are equal up to a byte and not longer than PART."""
    parts = -(-(stop - start) // PART)
    edges = [start + (stop - start) * part // parts for part in range(parts + 1)]
    return pairwise(edges)
