"""What a component of any kind promises."""

from __future__ import annotations

import pickle

import attrs

from opframe_registry.testing.promise import Case, Promise, require


def it_says_what_it_is(case: Case) -> None:
    """The docstring's first line says in words what the component is: `opframe list` shows it."""
    own = vars(type(case.component)).get("__doc__") or ""
    first = own.strip().partition("\n")[0]
    generated = first.startswith(f"{type(case.component).__name__}(")  # what dataclasses write where there is none
    require(bool(first) and not generated, f"{type(case.component).__name__} has no docstring")


def its_settings_are_a_value(case: Case) -> None:
    """Settings are frozen, equal where their values are equal, and pickle: runs store, compare and send them."""
    one = case.component
    same = type(one)(**{field.alias or field.name: getattr(one, field.name) for field in attrs.fields(type(one))})
    require(one == same, f"settings made anew from the same values differ: {one} and {same}")
    again = pickle.loads(pickle.dumps(one))
    require(again == one, f"a pickled copy is {again}, which is not equal to {one}")
    field = attrs.fields(type(one))[0].name if attrs.fields(type(one)) else "name"
    try:
        setattr(one, field, getattr(one, field))
    except (attrs.exceptions.FrozenInstanceError, AttributeError):
        return
    require(False, f"its key '{field}' can be changed after it was read; decorate it with @frozen(kw_only=True)")


PROMISES: tuple[Promise, ...] = (it_says_what_it_is, its_settings_are_a_value)
