"""Every public name of `opframe_registry` and `opframe`, a line for each thing that others may rely on.

    python tests/public_names.py > tests/public_names.txt

writes the list that test_public_names.py compares with. Its differences are what is told of a change.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cached_property
from types import FunctionType, ModuleType
from typing import Any

import attrs

import opframe
import opframe_registry
from opframe.evaluation.scores import DatasetReport, Measure, Score, Value
from opframe.weights.pretrained import Header

RETURNED = (DatasetReport, Measure, Score, Value, Header)
"""What is found in a Report, and as the `metadata` of a Pretrained."""

_SPECIAL = ("__call__", "__len__", "__getitem__", "__iter__")
_MISSING = (attrs.NOTHING, dataclasses.MISSING)


def listing() -> str:
    """The whole list."""
    lines = [*of_package(opframe_registry), *of_package(opframe)]
    for class_ in RETURNED:
        lines += ["", *of_class(f"returned by opframe: {class_.__name__}", class_)]
    return "\n".join(lines).lstrip("\n") + "\n"


def of_package(package: ModuleType) -> Iterator[str]:
    for name in sorted(package.__all__):
        value, place = getattr(package, name), f"{package.__name__}.{name}"
        if name == "__version__":
            continue
        yield ""
        if package is opframe and getattr(opframe_registry, name, None) is value:
            yield f"{place}: opframe_registry.{name}"
        elif inspect.isclass(value):
            yield from of_class(place, value)
        elif isinstance(value, FunctionType):
            yield f"{place}{inspect.signature(value)}"
        elif isinstance(value, Mapping):
            yield from (f"{place}[{key!r}]" for key in value)
        elif isinstance(value, tuple):
            yield from (f"{place}: {item.__name__}" for item in value)
        else:
            yield f"{place} = {in_words(value)}"


def in_words(value: Any) -> str:
    """A text as it is, a type as it is written, and of other objects what they are of."""
    if isinstance(value, str):
        return repr(value)
    module = type(value).__module__
    if module in ("typing", "types", "collections.abc"):
        return f"NewType of {value.__supertype__.__name__}" if hasattr(value, "__supertype__") else str(value)
    return f"{module}.{type(value).__name__}"


def of_class(place: str, class_: type) -> Iterator[str]:
    """Its bases; what it is made of, or its members; its class variables, methods and properties.

    What it has from a base is listed there.
    """
    bases = ", ".join(base.__name__ for base in class_.__bases__ if base is not object)
    yield f"{place}({bases})"
    if issubclass(class_, Enum):
        yield from (f"  {member.name} = {member.value!r}" for member in class_)
        return
    made_of = fields_of(class_)
    annotations = {name: kind for name, kind in inspect.get_annotations(class_).items() if name not in made_of}
    yield from (f"  {name}: {words}" for name, words in made_of.items())
    for name, kind in annotations.items():
        if not name.startswith("_"):
            yield f"  {name}: {kind}{default(getattr(class_, name, attrs.NOTHING))}"
    for name, member in sorted(vars(class_).items()):
        if (not name.startswith("_") or name in _SPECIAL) and (words := of_member(member)):
            yield f"  {words.format(name)}"


def fields_of(class_: type) -> dict[str, str]:
    """The arguments that make an object, by name, which are its attributes."""
    written = inspect.get_annotations(class_)  # attrs' own record of types changes when somebody has them resolved
    if attrs.has(class_):
        own = [each for each in attrs.fields(class_) if not each.inherited and not each.name.startswith("_")]
        return {each.name: argument(written[each.name], each.default, bool(each.kw_only)) for each in own}
    if dataclasses.is_dataclass(class_):
        made = dataclasses.MISSING
        items = [(item, item.default if item.default_factory is made else ...) for item in dataclasses.fields(class_)]
        return {item.name: argument(written[item.name], value, item.kw_only) for item, value in items}
    return {}


def argument(type_: str, value: Any, keyword: bool) -> str:
    """Its type, its default, and whether it may be given without its name."""
    return f"{type_}{default(value)}{'' if keyword else ', or by place'}"


def default(value: Any) -> str:
    """` = value` where that says it whole, ` = ...` for one that is made anew or is long."""
    if any(value is missing for missing in _MISSING) or inspect.ismemberdescriptor(value):
        return ""
    return f" = {value!r}" if isinstance(value, str | bool | int | float | tuple | None) else " = ..."


def of_member(member: Any) -> str | None:
    """A method or property, with braces for its name."""
    if isinstance(member, property | cached_property):
        function = member.fget if isinstance(member, property) else member.func
        return f"{{}}: {inspect.signature(function).return_annotation} (property)"
    if isinstance(member, classmethod):
        return f"{{}}{escaped(member.__func__)} (class method)"
    if isinstance(member, FunctionType):
        return f"{{}}{escaped(member)}{' (abstract)' if getattr(member, '__isabstractmethod__', False) else ''}"
    return None


def escaped(function: FunctionType) -> str:
    return str(inspect.signature(function)).replace("{", "{{").replace("}", "}}")


if __name__ == "__main__":
    print(listing(), end="")
