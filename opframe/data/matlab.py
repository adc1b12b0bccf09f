"""MATLAB files of the format before 7.3 (MAT-File Format, Level 5), of which no array is ever held in memory.

A file is a row of elements, one for each variable: a tag (type, bytes), then the variable or its zlib stream. Numbers
lie in column-major order, perhaps in a smaller type than the variable's own.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from math import prod
from typing import Any, BinaryIO, Protocol

import numpy as np
from attrs import frozen

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC_CLASSES = range(6, 16)  # the others are cells, structures, objects, text and sparse matrices
_COMPLEX = 0x08
_PIECE = 16 * 2**20


class _Stream(Protocol):
    def read(self, length: int, /) -> bytes: ...


@frozen(kw_only=True)
class MatVariable:
    """An array of real numbers: where its element begins, and how many bytes of that come before the numbers."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    element: int
    before: int
    length: int  # of the element, in the file
    compressed: bool

    @property
    def nbytes(self) -> int:
        """How many bytes the numbers take."""
        return prod(self.shape) * self.dtype.itemsize


def variables(file: BinaryIO) -> dict[str, MatVariable]:
    """The arrays of a file, by name. Raises ValueError if it is damaged or not of this format."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(_HEADER)
    order = {b"IM": "<", b"MI": ">"}.get(head[126:], "")
    if not order:
        raise ValueError("it does not begin as a MATLAB 5 file; MATLAB's save -v7.3 writes one that can be read")
    found: dict[str, MatVariable] = {}
    position = _HEADER
    while position < size:
        file.seek(position)
        kind, length = struct.unpack(f"{order}II", _take(file, 8))
        if position + 8 + length > size:
            raise ValueError(f"an element of {length} bytes begins at {position}, but the file has {size}")
        if kind in (_MATRIX, _COMPRESSED):
            variable = _describe(file, order, position + 8, length, kind == _COMPRESSED)
            found |= {variable.name: variable} if variable else {}
        position += 8 + length
    return found


def pieces(file: BinaryIO, variable: MatVariable) -> Iterator[bytes]:
    """The numbers of an array, in the file's order. Raises ValueError if the file is damaged."""
    file.seek(variable.element)
    inflated = _Inflated(file, variable.length) if variable.compressed else None
    stream: _Stream = inflated or file
    _take(stream, variable.before)
    for start in range(0, variable.nbytes, _PIECE):
        yield _take(stream, min(_PIECE, variable.nbytes - start))
    if inflated:
        inflated.finish()


def _describe(file: BinaryIO, order: str, element: int, length: int, compressed: bool) -> MatVariable | None:
    """The variable of an element; None if it is something else than real numbers."""
    stream = _Counted(_Inflated(file, length) if compressed else file)
    if compressed:
        kind, _ = struct.unpack(f"{order}II", _take(stream, 8))
        if kind != _MATRIX:
            return None
    flags, _ = struct.unpack(f"{order}II", _part(stream, order)[1])
    if flags & 0xFF not in _NUMERIC_CLASSES or flags >> 8 & _COMPLEX:
        return None
    _, lengths = _part(stream, order)
    shape = struct.unpack(f"{order}{len(lengths) // 4}i", lengths)
    name = _part(stream, order)[1].decode("latin-1")
    kind, nbytes, _ = _tag(stream, order)
    if kind not in _NUMBERS:
        raise ValueError(f"'{name}' holds numbers of an unknown type {kind}")
    dtype = np.dtype(order + _NUMBERS[kind])
    if nbytes != prod(shape) * dtype.itemsize:
        raise ValueError(f"'{name}' of shape {shape} has {nbytes} bytes of {dtype}")
    return MatVariable(
        name=name,
        shape=shape,
        dtype=dtype,
        element=element,
        before=stream.count,
        length=length,
        compressed=compressed,
    )


def _tag(stream: _Stream, order: str) -> tuple[int, int, bool]:
    """Type and bytes of a part, and whether it is so small that it lies within its tag."""
    (kind,) = struct.unpack(f"{order}I", _take(stream, 4))
    if kind >> 16:
        return kind & 0xFFFF, kind >> 16, True
    (length,) = struct.unpack(f"{order}I", _take(stream, 4))
    return kind, length, False


def _part(stream: _Stream, order: str) -> tuple[int, bytes]:
    """Type and content of a part; it is filled up to 8 bytes, or to 4 within its tag."""
    kind, length, small = _tag(stream, order)
    whole = 4 if small else -(-length // 8) * 8
    if whole > 2**16 or length > whole:
        raise ValueError(f"a name or shape of {length} bytes")
    return kind, _take(stream, whole)[:length]


def _take(stream: _Stream, length: int) -> bytes:
    content = stream.read(length)
    if len(content) < length:
        raise ValueError("it ends early")
    return content


class _Counted:
    """Counts what was read."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self.count = 0

    def read(self, length: int, /) -> bytes:
        content = self._stream.read(length)
        self.count += len(content)
        return content


class _Inflated:
    """What a zlib stream of `length` bytes holds, from where the file is on."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file, self._left = file, length
        self._zlib = zlib.decompressobj()

    def read(self, length: int, /) -> bytes:
        found: list[bytes] = []
        while length > 0 and not self._zlib.eof:
            packed = self._zlib.unconsumed_tail
            if not packed:
                packed = self._file.read(min(self._left, max(length // 4, 4096), _PIECE))
                self._left -= len(packed)
            try:
                content = self._zlib.decompress(packed, length)
            except zlib.error as error:
                raise ValueError(str(error)) from None
            if not packed and not content:
                break
            found.append(content)
            length -= len(content)
        return b"".join(found)

    def finish(self) -> None:
        """Read to the end, where the checksum is. Raises ValueError if that is wrong or not there."""
        while self.read(4096):
            pass
        if not self._zlib.eof:
            raise ValueError("it ends early")
