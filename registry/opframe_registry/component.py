"""What all kinds of components have in common."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import frozen


@frozen(kw_only=True)
class Component(ABC):  # noqa: B024 - each kind has its own build
    """Base of all kinds. Plugins derive from a kind, never from this."""

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Settings by the value of the key `size`; single keys override them."""


def summary(class_: type) -> str:
    """The first line of a class's docstring, which is its help."""
    return (class_.__doc__ or "").strip().split("\n")[0]
