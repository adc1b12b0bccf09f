"""What PDEBench's files say of their equations, in attributes, in names of files, or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping

import h5py
import numpy as np
from attrs import frozen

from opframe.files.location import attribute

_NUMBER = r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
# Attributes and file names spell some parameters differently.
_PARAMETERS = {
    "M": "Mach",
    "eta": "eta",
    "Eta": "eta",
    "zeta": "zeta",
    "Zeta": "zeta",
    "beta": "beta",
    "Nu": "Nu",
    "rho": "Rho",
    "Rho": "Rho",
}


@frozen(kw_only=True)
class GroupedEquation:
    """One of the problems that PDEBench stores in a group for each trajectory.

    `mark` is in the names of its files, `common` and `own` are numbers in the configuration that is stored with each
    trajectory: the same for all, or each its own.
    """

    title: str
    mark: str
    dimensions: int
    channels: tuple[str, ...] = ()
    boundary: str = "unknown"
    common: tuple[str, ...] = ()
    own: tuple[str, ...] = ()


GROUPED = (
    GroupedEquation(
        title="diffusion–reaction",
        mark="diff-react",
        dimensions=2,
        channels=("activator", "inhibitor"),
        boundary="no flux",
        common=("Du", "Dv", "k"),
    ),
    GroupedEquation(
        title="shallow water, radial dam break",
        mark="2D_rdb",
        dimensions=2,
        channels=("height",),
        boundary="open",
        common=("gravity", "inner_height"),
        own=("dam_radius",),
    ),
    GroupedEquation(
        title="diffusion–sorption",
        mark="diff-sorp",
        dimensions=1,
        channels=("concentration",),
        boundary="fixed value left, mixed right",
        common=("D", "por", "rho_s", "k_f", "n_f"),
    ),
)


def config_numbers(url: str, item: h5py.Group) -> dict[str, float]:
    """The numbers in the configuration that a file or group is stored with, by key; a nested one by its last part.

    It is YAML with a key to a line, or JSON: looking for `key: number` reads both, without a parser that would follow
    what else YAML can say.
    """
    text = attribute(url, item, "config", "")
    text = text.decode() if isinstance(text, bytes) else str(text)
    found = re.findall(rf"[\"']?\b([A-Za-z_]\w*)[\"']?\s*:[ \t]*({_NUMBER})(?=\s*(?:[,}}#\n]|$))", text)
    return {key: float(number) for key, number in found}


def attribute_parameters(url: str, file: h5py.File) -> dict[str, tuple[float, ...]]:
    """Parameters of the equation from a file's attributes or else from its name, like `…_Eta0.01_Zeta0.01_…`."""
    found = {name: np.ravel(attribute(url, file, key, ())) for key, name in _PARAMETERS.items()}
    stored = {name: float(values[0]) for name, values in found.items() if len(values) == 1}
    # Without a point, as in Turb_M01, a number has lost it: this is Mach 0.1.
    keys = "|".join(_PARAMETERS)
    named = re.findall(rf"(?<=_)({keys})(\d+(?:\.\d*(?:e[-+]?\d+)?|e[-+]?\d+))(?=[_.])", url.rsplit("/", 1)[-1])
    return {name: (value,) for name, value in ({_PARAMETERS[key]: float(text) for key, text in named} | stored).items()}


def one_dimensional(parameters: Mapping[str, tuple[float, ...]]) -> tuple[str, str]:
    """Equation and boundaries of a one-dimensional `tensor`, which its parameters tell."""
    known = {
        frozenset(["beta"]): "advection",
        frozenset(["Nu"]): "Burgers equation",
        frozenset(["Nu", "Rho"]): "reaction–diffusion",
    }
    title = known.get(frozenset(parameters))
    return (title, "periodic") if title else ("one-dimensional problem", "unknown")


def compressible_boundary(url: str) -> str:
    """Boundaries of compressible flow, which only the file's name says; `trans` lets waves out."""
    name = url.rsplit("/", 1)[-1]
    if "_periodic" in name:
        return "periodic"
    return "open" if "_trans" in name else "unknown"
