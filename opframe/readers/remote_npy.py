"""NumPy files: what their header says, and remote ones read window by window."""

from __future__ import annotations

import io
from math import prod
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from attrs import field, frozen

from opframe.files.file import RemoteFile
from opframe.files.reader import reader
from opframe.files.refusal import on_refusal, once_more
from opframe.files.retries import redacted
from opframe.readers.remote_layout import Array, Contiguous
from opframe.readers.remote_selection import Key, Selection
from opframe_registry import DataError


@frozen(kw_only=True)
class Header:
    """What a NumPy file holds, and where its data begins. `turned`: the first axis runs fastest."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    turned: bool
    offset: int

    @property
    def stop(self) -> int:
        """Where the data ends."""
        return self.offset + prod(self.shape) * self.dtype.itemsize


def read_header(file: BinaryIO) -> Header:
    """Read the header, with which the file begins. Raises ValueError if it is not one."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, turned, dtype = read(file)
    except (TokenError, SyntaxError) as error:  # it is written as Python writes a dictionary
        raise ValueError(f"its header is cut or damaged: {error}") from error
    if dtype.hasobject:
        raise ValueError("holds Python objects, which are not read")
    return Header(shape=tuple(shape), dtype=dtype, turned=turned, offset=file.tell())


@frozen(eq=False)
class RemoteNpy:
    """The array of a remote NumPy file. Reading gives arrays of one's own; slices may step, but not backwards."""

    file: RemoteFile
    header: Header = field(init=False)
    _layout: Contiguous = field(init=False, repr=False)

    @header.default
    def _look(self) -> Header:
        return once_more(self._read_header)

    def _read_header(self) -> Header:
        place = redacted(self.file.url)
        try:
            with reader(self.file) as opened:
                header = read_header(opened)
        except (ValueError, io.UnsupportedOperation) as error:
            raise DataError(f"{place}: cannot be read as a NumPy file; truncated or not NumPy? ({error})") from None
        if header.stop > self.file.identity.size:
            raise DataError(f"{place}: shorter than its header says; truncated?")
        return header

    @_layout.default
    def _lay_out(self) -> Contiguous:
        header = self.header
        shape = header.shape[::-1] if header.turned else header.shape
        return Contiguous(shape=shape, dtype=header.dtype, fill=np.zeros((), header.dtype), offset=header.offset)

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        return self.header.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its elements."""
        return self.header.dtype

    def __getitem__(self, key: Key) -> Array:
        """Some of its elements, all requests at the same time. Raises DataError; IndexError if `key` does not fit."""
        on_refusal(lambda: self.file.forget([(0, self.header.offset)]))
        selection = Selection.of(key, self.shape)
        if 0 in selection.shape:
            return selection.without_dropped(np.empty(selection.shape, self.dtype))
        stored = Selection(selection.picked[::-1], selection.dropped[::-1]) if self.header.turned else selection
        plan = self._layout.plan(stored)
        array = plan.finish(self.file.fetch(plan.ranges))
        return selection.without_dropped(array.T if self.header.turned else array)
