"""What a key of a settings class may hold: the one walk over the annotations of attrs classes.

Reading a table, describing a class and writing its schema all go by what is found here. A field of any other type
keeps its component from being offered.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
from attrs import frozen

from opframe_registry.components import KINDS
from opframe_registry.values import Location

SUPPORTED = (
    "int, float, bool, str, Location, Literal[...] of words or whole numbers, tuple[X, ...], tuple[X, Y], "
    "Mapping[str, X], dict[str, X], another attrs class, a kind of component, and X | Y of those that TOML tells apart"
)
"""The types of fields that a component may have, for people."""

_SCALARS = (int, float, str, bool)
_INSTEAD: Mapping[str, str] = {
    "Path": "write Location: it is relative to the file it is written in, and may be a URL",
    "list": "write tuple[X, ...]: settings do not change",
    "Sequence": "write tuple[X, ...]: settings do not change",
    "set": "write tuple[X, ...]: TOML has no sets",
    "frozenset": "write tuple[X, ...]: TOML has no sets",
    "Enum": "write Literal[...] of the words",
}


class UnsupportedTypeError(TypeError):
    """An annotation means nothing in TOML; the message says which, and what would."""


@frozen(kw_only=True)
class KeyType:
    """What an annotation means in TOML.

    `written` are the Python types of the TOML values that are of it, `inside` the annotations of what it is made of:
    of the items of a list or mapping, of each place of a row, of each option of a choice between types.
    """

    annotation: Any
    written: frozenset[type]
    inside: tuple[Any, ...] = ()


class ScalarType(KeyType):
    """int, float, str or bool."""


class LocationType(KeyType):
    """A path or URL."""


class ChoiceType(KeyType):
    """One of a few words or whole numbers."""

    @property
    def choices(self) -> tuple[str | int, ...]:
        """What can be chosen."""
        return get_args(self.annotation)


class ListType(KeyType):
    """Any number of items of one type: `tuple[X, ...]`."""


class RowType(KeyType):
    """One type for each place: `tuple[X, Y]`."""


class MappingType(KeyType):
    """A table whose keys are the person's own: `Mapping[str, X]`."""


class TableType(KeyType):
    """A table whose keys are the fields of an attrs class."""


class ComponentType(KeyType):
    """A table whose `type` names an installed component of a kind."""


class EitherType(KeyType):
    """One of several types, which the value tells apart. `X | None` is X alone: TOML has no null."""


@frozen(kw_only=True)
class SettingsKey:
    """One key of a settings class `owner`: its name in TOML, the field that holds it, and its type."""

    owner: type
    name: str
    attribute: attrs.Attribute[Any]
    type: KeyType


def keys_of(class_: type) -> list[SettingsKey]:
    """The keys of an attrs class in their order. Raises UnsupportedTypeError naming class and field."""
    try:
        hints = get_type_hints(class_)
    except Exception as error:  # whatever an annotation does when it is evaluated
        raise UnsupportedTypeError(
            f"{class_.__name__}: its annotations cannot be read ({type(error).__name__}: {error}); import the types "
            "of fields outside of 'if TYPE_CHECKING'"
        ) from error
    found = []
    for attribute in attrs.fields(class_):
        try:
            type_ = key_type(hints[attribute.name])
        except UnsupportedTypeError as error:
            raise UnsupportedTypeError(f"{class_.__name__}.{attribute.name}: {error}") from None
        found.append(SettingsKey(owner=class_, name=key_name(attribute), attribute=attribute, type=type_))
    return found


def key_name(attribute: attrs.Attribute[Any]) -> str:
    """An attribute's key in TOML: its name, without the underscore that a word of Python's own takes (`from_`)."""
    return attribute.name.rstrip("_")


def key_type(annotation: Any) -> KeyType:
    """What an annotation means in TOML, seen from outside: `inside` has more of them. Raises UnsupportedTypeError."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _SCALARS:
        written = {int, float} if annotation is float else {annotation}
        return ScalarType(annotation=annotation, written=frozenset(written))
    if annotation is Location:
        return LocationType(annotation=annotation, written=frozenset({str}))
    if origin is Literal and all(type(choice) in (str, int) for choice in arguments):
        return ChoiceType(annotation=annotation, written=frozenset(map(type, arguments)))
    if origin is tuple and arguments:
        many = arguments[-1] is Ellipsis
        made = ListType if many else RowType
        return made(annotation=annotation, written=frozenset({list}), inside=arguments[:1] if many else arguments)
    if origin in (dict, Mapping) and arguments[0] is str:
        return MappingType(annotation=annotation, written=frozenset({dict}), inside=arguments[1:])
    if origin in (Union, types.UnionType):
        return _either(annotation, tuple(option for option in arguments if option is not types.NoneType))
    if annotation in KINDS:
        return ComponentType(annotation=annotation, written=frozenset({dict}))
    if isinstance(annotation, type) and attrs.has(annotation):
        return TableType(annotation=annotation, written=frozenset({dict}))
    if meant := getattr(annotation, "__supertype__", None) or getattr(annotation, "__value__", None):
        return key_type(meant)  # a NewType, or a `type` statement
    raise UnsupportedTypeError(f"the type {_shown(annotation)} is not supported; {_instead(annotation)}")


def _either(annotation: Any, options: tuple[Any, ...]) -> KeyType:
    """A union, whose options have to differ in how they are written: of two tables nobody could say which is meant."""
    known = [key_type(option) for option in options]
    if len(known) == 1:
        return known[0]
    plain = [type_.written for type_ in known if not isinstance(type_, ChoiceType) and type_.annotation is not float]
    if sum(map(len, plain)) > len(frozenset[type]().union(*plain)):
        raise UnsupportedTypeError(f"TOML cannot tell apart the types of {_shown(annotation)}; keep one of them")
    written = frozenset[type]().union(*(type_.written for type_ in known))
    return EitherType(annotation=annotation, written=written, inside=options)


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) and not get_origin(annotation) else str(annotation)


def _instead(annotation: Any) -> str:
    """What to write in place of a type that is not supported."""
    class_ = get_origin(annotation) or annotation
    bases = [base.__name__ for base in class_.__mro__] if isinstance(class_, type) else []
    return next((_INSTEAD[base] for base in bases if base in _INSTEAD), f"supported are {SUPPORTED}")


def unsupported(class_: type, above: tuple[type, ...] = ()) -> str | None:
    """Why a settings class cannot be written in TOML, the classes inside it included, or None."""
    if class_ in above:
        return f"{class_.__name__} holds itself, by way of {above[-1].__name__}"
    try:
        keys = keys_of(class_)
        tables = {table for key in keys for table in _tables(key)}
    except UnsupportedTypeError as error:
        return str(error)
    for key in keys:
        default = key.attribute.default
        given = default is not None and default is not attrs.NOTHING and type(default) is not attrs.Factory
        if given and not holds(key.type, default):
            return f"{class_.__name__}.{key.attribute.name}: the default {default!r} is not of the field's type"
    return next(filter(None, (unsupported(table, (*above, class_)) for table in tables)), None)


def _tables(key: SettingsKey) -> Iterator[type]:
    """The attrs classes that a key's values are made of. Raises UnsupportedTypeError naming the key's field."""
    left = [key.type]
    while left:
        type_ = left.pop()
        if isinstance(type_, TableType):
            yield type_.annotation
        try:
            left += [key_type(inner) for inner in type_.inside]
        except UnsupportedTypeError as error:
            raise UnsupportedTypeError(f"{key.owner.__name__}.{key.attribute.name}: {error}") from None


def holds(type_: KeyType, value: Any) -> bool:
    """Whether a value, as it stands in settings, is of a type."""
    inside = [key_type(inner) for inner in type_.inside]
    match type_:
        case ListType():
            return isinstance(value, tuple) and all(holds(inside[0], item) for item in value)
        case RowType():
            return isinstance(value, tuple) and len(value) == len(inside) and all(map(holds, inside, value))
        case MappingType():
            named = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
            return named and all(holds(inside[0], item) for item in value.values())
        case EitherType():
            return any(holds(option, value) for option in inside)
        case TableType() | ComponentType():
            return isinstance(value, type_.annotation)
        case ChoiceType():
            return type(value) in type_.written and value in type_.choices
    return type(value) in type_.written
