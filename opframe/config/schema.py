"""JSON Schema (2020-12) of experiment files, for editors."""

from __future__ import annotations

from typing import Any

import attrs

from opframe.config.describe import SCALARS
from opframe.config.settings import Experiment
from opframe.config.structure import to_tables
from opframe_registry import KINDS, Catalog, Component
from opframe_registry.component import summary
from opframe_registry.keys import (
    ChoiceType,
    ComponentType,
    EitherType,
    ListType,
    LocationType,
    MappingType,
    RowType,
    ScalarType,
    key_type,
    keys_of,
)


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
    properties: dict[str, Any] = {}
    required = []
    for key in keys_of(class_):
        default, help_ = key.attribute.default, key.attribute.metadata.get("help", "")
        properties[key.name] = {**_type(key.type.annotation), "description": help_}
        if default is attrs.NOTHING:
            required.append(key.name)
        elif default is not None and type(default) is not attrs.Factory:
            properties[key.name]["default"] = to_tables(default)
    return {
        "type": "object",
        "description": summary(class_),
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _type(annotation: Any) -> dict[str, Any]:
    type_ = key_type(annotation)
    inside = [_type(inner) for inner in type_.inside]
    match type_:
        case ScalarType():
            return {"type": SCALARS[type_.annotation]}
        case LocationType():
            return {"type": "string"}
        case ChoiceType():
            return {"enum": list(type_.choices)}
        case ListType():
            return {"type": "array", "items": inside[0]}
        case RowType():
            return {"type": "array", "prefixItems": inside, "items": False, "minItems": len(inside)}
        case MappingType():
            return {"type": "object", "additionalProperties": inside[0]}
        case EitherType():
            return {"anyOf": inside}
        case ComponentType():
            return {"$ref": f"#/$defs/{type_.annotation.kind}"}
    return _table(type_.annotation)
