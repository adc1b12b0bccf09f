"""What a promise is: a function of a case that raises PromiseError, whose docstring is the promise in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, cast

import attrs
from attrs import define, field, frozen

from opframe_registry.component import Component
from opframe_registry.errors import OpframeError
from opframe_registry.testing.helper import Helper

Made = TypeVar("Made")


class PromiseError(AssertionError):
    """A component does not do what its kind promises; the message says what it does instead."""


class NotApplicableError(Exception):
    """A promise says nothing about this component; the message says why."""


@define(kw_only=True, eq=False)
class Case:
    """A component with settings, on which promises are tried.

    `folder` is its own folder for whatever is written, `facts` what was measured of it, for people to read. `helper`
    calls functions in another process.
    """

    component: Component
    folder: Path
    helper: Helper
    facts: list[str] = field(factory=list)
    _kept: dict[Hashable, Any] = field(factory=dict, repr=False)

    def once(self, what: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` returns, which is made for the first promise that asks for it."""
        if what not in self._kept:
            self._kept[what] = make()
        return cast("Made", self._kept[what])

    def with_settings(self, **settings: Any) -> Case:
        """The case with other settings."""
        return attrs.evolve(self, component=attrs.evolve(self.component, **settings), kept={})

    def check(self) -> None:
        """Try all promises of the component. Raises PromiseError naming those that are broken, with what was found."""
        broken = broken_promises_of(self)
        if broken:
            raise PromiseError("\n\n".join(map(str, broken.values())))


Promise = Callable[[Case], None]


def require(kept: bool, otherwise: str) -> None:
    """Raises PromiseError saying what is wrong unless `kept`."""
    if not kept:
        raise PromiseError(otherwise)


@contextmanager
def expected(error: type[OpframeError], what: str) -> Iterator[None]:
    """Raises PromiseError unless what is done inside raises this error, which is written for people."""
    try:
        yield
    except error:
        return
    except Exception as other:
        raise PromiseError(f"{what} raises {type(other).__name__}, expected {error.__name__}: {other}") from other
    raise PromiseError(f"{what} raises nothing; expected {error.__name__}")


def promises_of(kind: str) -> tuple[Promise, ...]:
    """All promises of a kind, such as "backbone". Torch is imported here at the earliest."""
    own = import_module(f"opframe_registry.testing.{kind}").PROMISES
    return (*import_module("opframe_registry.testing.every").PROMISES, *own)


@frozen(kw_only=True, eq=False)
class Trial:
    """One promise of one case; `name` is the case's, such as `dpot[backbone]`."""

    name: str
    case: Case
    promise: Promise

    @property
    def words(self) -> str:
        """The promise in words."""
        return " ".join((self.promise.__doc__ or self.promise.__name__).partition("\n\n")[0].split())

    def __str__(self) -> str:
        return f"{self.name}::{self.promise.__name__}"

    def check(self) -> None:
        """Try the promise.

        Raises PromiseError naming it where it is broken, by an exception too, and NotApplicableError where it says
        nothing about the component.
        """
        try:
            self.promise(self.case)
        except NotApplicableError:
            raise
        except PromiseError as error:
            raise PromiseError(f"{self} is broken. Promised: {self.words}\nFound: {error}") from error.__cause__
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
            raise PromiseError(f"{self} is broken. Promised: {self.words}\nFound: {found}") from error


def trials(name: str, case: Case) -> list[Trial]:
    """All promises of a component."""
    return [Trial(name=name, case=case, promise=promise) for promise in promises_of(case.component.kind)]


def broken_promises_of(case: Case) -> dict[str, PromiseError]:
    """The promises that the component of a case breaks, by name."""
    found = {}
    for trial in trials(f"{case.component.name}[{case.component.kind}]", case):
        try:
            trial.check()
        except PromiseError as error:
            found[trial.promise.__name__] = error
        except NotApplicableError:
            pass
    return found


def broken_promises(component: Component, folder: Path) -> dict[str, PromiseError]:
    """The promises that a component breaks, by name; for use without pytest. `folder` is where it may write."""
    with Helper() as helper:
        return broken_promises_of(Case(component=component, folder=folder, helper=helper))
