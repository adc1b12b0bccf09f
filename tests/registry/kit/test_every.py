"""Settings that are broken on purpose, whatever the kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest

from opframe_registry import Population, Sampler
from opframe_registry.testing import Case, PromiseError
from opframe_registry.testing.every import its_settings_are_a_value
from opframe_registry.testing.helper import Helper


@attrs.frozen(kw_only=True)
class Good(Sampler):
    """Can be compared, sent and relied on."""

    name: ClassVar[str] = "good"
    count: int = 1

    def build(self, populations: Sequence[Population]) -> Callable[..., Any]:
        raise NotImplementedError


@attrs.frozen(kw_only=True, eq=False)
class Unlike(Good):
    """Equals itself alone."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


@attrs.frozen(kw_only=True)
class Unsent(Good):
    """Forgets what it holds on the way."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


@attrs.define(kw_only=True, on_setattr=attrs.setters.NO_OP)
class Loose(Good):
    """Can be changed."""

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def tried(component: Sampler, folder: Path) -> None:
    its_settings_are_a_value(Case(component=component, folder=folder, helper=Helper()))


def test_good_settings_are_a_value(tmp_path: Path) -> None:
    tried(Good(count=2), tmp_path)


@pytest.mark.parametrize(
    ("component", "said"),
    [
        (Unlike(), "made anew from the same values differ"),
        (Unsent(count=2), "a pickled copy is"),
        (Loose(), "can be changed after it was read"),
    ],
    ids=["unlike", "unsent", "loose"],
)
def test_others_are_not(component: Sampler, said: str, tmp_path: Path) -> None:
    with pytest.raises(PromiseError, match=said):
        tried(component, tmp_path)
