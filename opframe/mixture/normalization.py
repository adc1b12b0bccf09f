"""Bringing a dataset's own channels to the units of a model, and back; and what was learnt for it, as files hold it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Literal, get_args

import torch
from attrs import field, frozen
from torch import Tensor

from opframe_registry import Normalization

Number = Literal["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


@frozen(kw_only=True)
class Array:
    """A small array as it stands in a file. Raises ValueError unless there are as many values as its shape says."""

    values: tuple[float, ...] = field(metadata={"help": "all of its values, the last axis first"})
    shape: tuple[int, ...] | None = field(default=None, metadata={"help": "its shape (default: one axis)"})
    dtype: Number = field(default="float64", metadata={"help": "the type of its numbers"})

    def __attrs_post_init__(self) -> None:
        if self.shape is not None and prod(self.shape) != len(self.values):
            there = len(self.values)
            raise ValueError(f"shape = {list(self.shape)} takes {prod(self.shape)} values, but {there} are there")

    def tensor(self) -> Tensor:
        """The array on the CPU."""
        values = torch.tensor(self.values, dtype=torch.float64).to(getattr(torch, self.dtype))
        return values if self.shape is None else values.reshape(self.shape)


def arrays(state: Mapping[str, Tensor]) -> dict[str, Array]:
    """A normalization's state as files hold it, to the last digit. Raises ValueError for numbers that are not real."""
    return {name: _array(name, value.detach().cpu()) for name, value in state.items()}


def _array(name: str, value: Tensor) -> Array:
    dtype = next((word for word in get_args(Number) if value.dtype == getattr(torch, word)), None)
    if dtype is None:
        known = ", ".join(get_args(Number))
        raise ValueError(f"'{name}' holds numbers of the type {value.dtype}; expected one of {known}")
    shape = None if value.ndim == 1 else tuple(value.shape)
    return Array(values=tuple(map(float, value.flatten().tolist())), shape=shape, dtype=dtype)


def tensors(state: Mapping[str, Array]) -> dict[str, Tensor]:
    """The inverse of `arrays`."""
    return {name: array.tensor() for name, array in state.items()}


def apply_to(frames: Tensor, normalization: Normalization) -> None:
    """A dataset's own channels (T, C, *grid) in its units become those that a model sees, in place."""
    applied = normalization.apply(frames)
    if applied is not frames:
        frames.copy_(applied)


def restored(frames: Tensor, normalization: Normalization, channels: int) -> Tensor:
    """What a model sees or predicts, (B, T, C, *grid), with the first `channels` of the channels in a dataset's units.

    Those that pad the dataset to the width of the mixture stay exactly as they are.
    """
    own = normalization.restore(frames[:, :, :channels])
    return own if frames.shape[2] == channels else torch.cat([own, frames[:, :, channels:]], 2)
