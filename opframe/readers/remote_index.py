"""What HDF5 says of a remote file: names, attributes, where the data lies.

h5py reads from the bytes that are already here. When it needs others it is stopped, they are fetched, and it starts
again. So nothing waits for the network while it holds the lock of HDF5: other threads go on decoding, and the deadlock
that h5py's documentation warns of (a garbage collection in the thread that fetches) cannot come about. What was read
for an answer, a few kilobytes, is kept on disk, and the next process asks the server for none of it.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import h5py
from attrs import define, field

from opframe.files.file import GAP, Range, RemoteFile
from opframe.files.refusal import on_refusal, once_more
from opframe.files.retries import redacted
from opframe_registry import DataError

_Answer = TypeVar("_Answer")
_Pieces = dict[Range, bytes]  # what HDF5 has read, by where

_BLOCK = 64 * 2**10  # headers and nodes of trees are smaller; most have neighbours that are needed next
_FURTHEST = 64  # blocks read at once where HDF5 walks along the file
_BLOCKS_HELD = 128  # in memory: 8 MiB for each file


class _AbsentError(Exception):
    """HDF5 needs bytes that are not here."""


class _View:
    """The file as h5py's driver for Python objects wants it, made of the bytes that are here."""

    def __init__(self, size: int, known: _Pieces, blocks: _Blocks) -> None:
        self.size, self.known, self.blocks = size, known, blocks
        self.used: _Pieces = {}
        self.absent: Range | None = None
        self._position = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = (0, self._position, self.size)[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, length: int) -> bytes:
        target = bytearray(length)
        return bytes(target[: self.readinto(memoryview(target))])

    def readinto(self, target: memoryview) -> int:
        place = (self._position, min(self._position + len(target), self.size))
        piece = self.known.get(place) or self.blocks.read(*place)
        if piece is None:
            self.absent = place
            raise _AbsentError
        self.used[place] = piece
        target[: len(piece)] = piece
        self._position = place[1]
        return len(piece)


class _Blocks:
    """Blocks of the file in memory, a bounded number, for all threads."""

    def __init__(self) -> None:
        self._blocks: dict[int, memoryview] = {}
        self._lock = threading.Lock()

    def read(self, start: int, stop: int) -> bytes | None:
        """Bytes [start, stop), or None if some of them are not here."""
        numbers = range(start // _BLOCK, -(-stop // _BLOCK))
        with self._lock:
            if not all(number in self._blocks for number in numbers):
                return None
            content = b"".join(self._blocks[number] for number in numbers)
        return content[start - numbers.start * _BLOCK :][: stop - start]

    def add(self, first: int, content: memoryview) -> None:
        """Blocks from number `first` on; the oldest make room for them."""
        new = {first + at // _BLOCK: content[at : at + _BLOCK] for at in range(0, len(content), _BLOCK)}
        with self._lock:
            while self._blocks and len(self._blocks) + len(new) > _BLOCKS_HELD:
                del self._blocks[next(iter(self._blocks))]
            self._blocks.update(new)

    def forget(self) -> None:
        with self._lock:
            self._blocks.clear()


@define
class Index:
    """Asks h5py about a remote file. Threads may share it."""

    file: RemoteFile
    _blocks: _Blocks = field(factory=_Blocks, init=False)

    def ask(self, question: Callable[[h5py.File], _Answer], name: str = "") -> _Answer:
        """The answer to a question that may be asked several times over, in which nothing of h5py may be left.

        What is read for it is kept on disk under a name, if there is one. Raises DataError if the file is not HDF5,
        and whatever the question raises, both when bytes that were fetched anew say the same.
        """
        return once_more(lambda: self._ask(question, name))

    def forget(self) -> None:
        """Keep nothing of what HDF5 has read of the file, neither here nor on disk."""
        self._blocks.forget()
        store = self.file.cache.index
        for key in store.names(self._begin()) if self.file.kept else ():
            self.file.forget(_unpack(store.get(key) or _pack({})))
            store.forget(key)

    def _begin(self) -> str:
        """What the names of all entries of this version of the file begin with."""
        return self.file.name("index")[:32]

    def _ask(self, question: Callable[[h5py.File], _Answer], name: str) -> _Answer:
        on_refusal(self.forget)
        store, key = self.file.cache.index, self._begin() + hashlib.sha256(name.encode()).hexdigest()[:32]
        kept = store.get(key) if name and self.file.kept else None
        known, last, reach = _unpack(kept) if kept else {}, (0, 0), 1
        while True:
            view = _View(self.file.identity.size, known, self._blocks)
            with suppress(_AbsentError):
                answer = self._attempt(view, question)
            if view.absent is None:
                break
            near = 0 <= view.absent[0] - last[1] <= GAP
            reach = min(2 * reach, _FURTHEST) if near else 1
            last, piece = self._bring(view.absent, reach)
            known = {**known, **view.used, view.absent: piece}
        if name and self.file.kept and view.used.keys() != (_unpack(kept) if kept else {}).keys():
            store.put(key, _pack(view.used))
        return answer

    def _attempt(self, view: _View, question: Callable[[h5py.File], _Answer]) -> _Answer:
        try:
            file = h5py.File(view, "r")
        except OSError as error:
            if view.absent:
                raise _AbsentError from None
            place = redacted(self.file.url)
            raise DataError(f"{place}: cannot be read as HDF5; truncated or not HDF5? ({error})") from None
        with file:
            try:
                return question(file)
            except Exception:
                if view.absent:  # HDF5 may have made something else of it
                    raise _AbsentError from None
                raise

    def _bring(self, absent: Range, reach: int) -> tuple[Range, bytes]:
        """Fetch the blocks of bytes that HDF5 needs and those behind them: which bytes came, and the ones needed."""
        first, last = absent[0] // _BLOCK, max(absent[0] // _BLOCK + reach, -(-absent[1] // _BLOCK))
        extent = (first * _BLOCK, min(last * _BLOCK, self.file.identity.size))
        [content] = self.file.fetch([extent])
        self._blocks.add(first, content)
        return extent, bytes(content[absent[0] - extent[0] : absent[1] - extent[0]])


def _pack(pieces: _Pieces) -> bytes:
    places = struct.pack(f"<Q{2 * len(pieces)}Q", len(pieces), *(edge for place in pieces for edge in place))
    return places + b"".join(pieces.values())


def _unpack(content: bytes) -> _Pieces:
    (number,) = struct.unpack_from("<Q", content)
    edges = struct.unpack_from(f"<{2 * number}Q", content, 8)
    pieces, position = {}, 8 + 16 * number
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        pieces[start, stop] = content[position : position + stop - start]
        position += stop - start
    return pieces
