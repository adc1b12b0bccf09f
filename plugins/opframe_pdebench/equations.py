"""What PDEBench's files say of their equations, in attributes, in names of files, or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import h5py
import numpy as np
from attrs import field, frozen

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


Boundaries = str | tuple[str, ...]
"""One word for all sides, or one for each axis, as `Metadata` takes them."""


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
    boundary: Boundaries = "unknown"
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
        boundary=("fixed value to mixed",),
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


@frozen(kw_only=True)
class OneDimensional:
    """What the parameters of a one-dimensional `tensor` tell of it. `conserved` is in the terms of `Metadata`."""

    title: str
    boundary: str = "periodic"
    conserved: Mapping[str, tuple[str, ...]] = field(factory=dict)


def one_dimensional(parameters: Mapping[str, tuple[float, ...]]) -> OneDimensional:
    """The equation of a one-dimensional `tensor`."""
    known = {
        frozenset(["beta"]): OneDimensional(title="advection", conserved={"mass": ("u",)}),
        frozenset(["Nu"]): OneDimensional(title="Burgers equation", conserved={"momentum": ("u",)}),
        frozenset(["Nu", "Rho"]): OneDimensional(title="reaction–diffusion"),
    }
    unknown = OneDimensional(title="one-dimensional problem", boundary="unknown")
    return known.get(frozenset(parameters), unknown)


def compressible_boundary(url: str) -> str:
    """Boundaries of compressible flow, which only the file's name says; `trans` lets waves out."""
    name = url.rsplit("/", 1)[-1]
    if "_periodic" in name:
        return "periodic"
    return "open" if "_trans" in name else "unknown"


def compressible_conserved(boundary: str, velocities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Mass and momentum, which keep their integral where nothing leaves; energy depends on the gas, too."""
    if boundary != "periodic":
        return {}
    return {"mass": ("density",), **{f"momentum{name[-2:]}": ("density", name) for name in velocities}}


def vectors_of(channels: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The channels that are components of one vector, such as velocity_x and velocity_y."""
    named = [[name for name in channels if re.fullmatch(rf"{what}_[xyz]", name)] for what in ("velocity", "force")]
    return tuple(tuple(sorted(group)) for group in named if group)
