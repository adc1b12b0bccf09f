"""JSON Schema (2020-12) of experiment files, for editors."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs

from opframe.config import to_tables
from opframe.describe import summary
from opframe.settings import Experiment, key_name
from opframe_registry import KINDS, Catalog, Component, Location


def json_schema(catalog: Catalog) -> dict[str, Any]:
    """The schema of an experiment, with every installed component."""
    schema = _table(Experiment)
    text = {"type": "string"}
    schema["properties"]["include"] = {"anyOf": [text, {"type": "array", "items": text}]}
    schema["required"] = []  # an included file may bring what is missing here
    definitions = {kind.kind: _kind(kind, catalog) for kind in KINDS}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": definitions}


def _kind(kind: type[Component], catalog: Catalog) -> dict[str, Any]:
    options = []
    for _, item in catalog.offers(kind):
        table = _table(item)
        table["properties"]["type"] = {"const": item.name, "description": summary(item)}
        if item.presets:
            table["properties"]["size"] = {"enum": list(item.presets)}
        table["required"] = ["type", *table["required"]]
        options.append(table)
    return {"oneOf": options}


def _table(class_: type) -> dict[str, Any]:
    hints = get_type_hints(class_)
    properties: dict[str, Any] = {}
    required = []
    for attribute in attrs.fields(class_):
        name = key_name(attribute)
        properties[name] = {**_type(hints[attribute.name]), "description": attribute.metadata.get("help", "")}
        if attribute.default is attrs.NOTHING:
            required.append(name)
        elif attribute.default is not None and type(attribute.default) is not attrs.Factory:
            properties[name]["default"] = to_tables(attribute.default)
    return {
        "type": "object",
        "description": summary(class_),
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _type(annotation: Any) -> dict[str, Any]:
    names = {int: "integer", float: "number", str: "string", bool: "boolean", Location: "string"}
    if annotation in names:
        return {"type": names[annotation]}
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        options = [_type(option) for option in arguments if option is not types.NoneType]
        return options[0] if len(options) == 1 else {"anyOf": options}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0])}
    if annotation in KINDS:
        return {"$ref": f"#/$defs/{annotation.kind}"}
    return _table(annotation)
