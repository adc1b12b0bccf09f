"""Telling PDEBench's layouts apart by the names and shapes of their arrays."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

Kind = Literal["compressible", "incompressible", "tensor", "groups"]

EXPECTED = (
    "expected Vx, density and pressure (compressible flow), or velocity, particles and force (incompressible flow), "
    "or tensor (advection, Burgers, Darcy), or groups 0000, 0001, … of data and grid/x (diffusion–reaction, dam break)"
)


def kind_of(paths: Iterable[str]) -> Kind | None:
    """Which layout has arrays of these names; None: none of PDEBench's."""
    names = set(paths)
    if {"Vx", "density", "pressure"} <= names:
        return "compressible"
    if {"velocity", "particles", "force"} <= names:
        return "incompressible"
    if "tensor" in names:
        return "tensor"
    grouped = any(re.fullmatch(r"\d{4,}/data", name) and name.replace("/data", "/grid/x") in names for name in names)
    return "groups" if grouped else None


def recognised(contents: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a file, or the first file of a folder (`file:path`), holds arrays of one of the layouts."""
    first = next(iter(contents), "")
    folder = first.partition(":")[0] + ":" if ":" in first else ""
    shapes = {path.removeprefix(folder): shape for path, shape in contents.items() if path.startswith(folder)}
    match kind_of(shapes):
        case "compressible":
            return 3 <= len(shapes["Vx"]) <= 5 and shapes["Vx"] == shapes["density"] == shapes["pressure"]
        case "incompressible":
            return len(shapes["velocity"]) == len(shapes["particles"]) == len(shapes["force"]) + 1
        case "tensor":
            return len(shapes["tensor"]) == (4 if "nu" in shapes else 3)
        case "groups":
            return all(3 <= len(shape) <= 5 for path, shape in shapes.items() if path.endswith("/data"))
        case _:
            return False
