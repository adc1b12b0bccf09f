"""What a set of trajectories is, said by the dataset: its axes, channels, boundary, and the numbers of its equation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import attrs
from attrs import field, frozen


class Boundary(IntEnum):
    """What happens at one side of an axis. The numbers are those in `Conditions.boundary`; they never change."""

    UNKNOWN = 0
    PERIODIC = 1
    WALL = 2  # no slip: the velocity vanishes
    SLIP = 3  # a wall that only the normal velocity vanishes at, or a mirror
    DIRICHLET = 4  # a value is given
    NEUMANN = 5  # the derivative along the normal is given, as where nothing flows through
    ROBIN = 6  # value and derivative together
    OPEN = 7  # waves and flow leave
    INFLOW = 8  # flow enters
    POLE = 9  # the axis ends in one point, as latitude does on a sphere

    @classmethod
    def of(cls, word: str) -> Boundary:
        """The boundary that a word stands for, in any of its usual names. Raises ValueError naming those known."""
        plain = word.strip().lower().replace("-", " ").replace("_", " ")
        if plain.upper() in cls.__members__:
            return cls[plain.upper()]
        if plain in _NAMES:
            return _NAMES[plain]
        known = ", ".join((*(item.name.lower() for item in cls), *_NAMES))
        raise ValueError(f"'{word}' is no boundary that is known; known are {known}")


_NAMES = {
    "no slip": Boundary.WALL,
    "walls": Boundary.WALL,
    "closed": Boundary.WALL,
    "free slip": Boundary.SLIP,
    "symmetric": Boundary.SLIP,
    "reflective": Boundary.SLIP,
    "reflecting": Boundary.SLIP,
    "fixed value": Boundary.DIRICHLET,
    "no flux": Boundary.NEUMANN,
    "mixed": Boundary.ROBIN,
    "outgoing": Boundary.OPEN,
    "outflow": Boundary.OPEN,
    "": Boundary.UNKNOWN,
    # what older files say of sides that differ
    "walls and inflow": Boundary.UNKNOWN,
    "fixed value left, mixed right": Boundary.UNKNOWN,
    "sphere": Boundary.UNKNOWN,
}

_TO = " to "

Sides = tuple[Boundary, Boundary]
"""The lower and the upper side of an axis."""


def _sides(value: str | Boundary | Sequence[str | Boundary | Sequence[str | Boundary]]) -> tuple[Sides, ...]:
    """One boundary for all sides, or one for each axis: a boundary, or a pair of them for its lower and upper side."""
    return (_pair(value),) if isinstance(value, str | Boundary) else tuple(map(_pair, value))


def _pair(value: str | Boundary | Sequence[str | Boundary]) -> Sides:
    if isinstance(value, str):
        value = value.split(_TO)  # "wall to open", or one word
    elif isinstance(value, Boundary):
        value = (value,)
    lower, upper = value if len(value) == 2 else (*value, *value)
    return _boundary(lower), _boundary(upper)


def _boundary(value: str | Boundary) -> Boundary:
    return Boundary.of(value) if isinstance(value, str) else Boundary(value)


@frozen(kw_only=True)
class Metadata:
    """What a set of trajectories is.

    `channels` are all channels in the order in which `read` returns them, `predicted` those that a model is to predict
    (the others are input only), `units` one for each channel, empty where unknown. `vectors` names the channels that
    are the components of one vector, in the order of the axes; `conserved` says by name which quantities keep their
    integral over the domain, each as the channels whose product is its density, as `{"mass": ("h",)}`.

    `frames` is the length of the longest trajectory and `lengths`, where they differ, that of each; where all are
    alike, it is left empty whatever was given. `time_step` is in the equation's own unit of time, `spacing` for each
    axis of the grid in its unit of length. `boundary` has the lower and the upper side of each axis; one for all, or
    one for each axis, may be given as a word, such as "periodic".

    `parameters` are numbers of the equation by name: one for all trajectories, or one for each (NaN where unknown).
    `missing` is the value that stands where there is none, such as NaN on land; no such point enters a loss, a measure
    or a normalisation. `split` says how training, validation and test data were told apart.

    Raises ValueError where these do not fit together.
    """

    trajectories: int
    frames: int
    grid: tuple[int, ...]
    channels: tuple[str, ...]
    predicted: tuple[str, ...]
    boundary: tuple[Sides, ...] = field(default="unknown", converter=_sides)
    time_step: float | None = None
    source: str = ""
    license: str = ""
    units: tuple[str, ...] = ()
    spacing: tuple[float, ...] | None = None
    parameters: Mapping[str, tuple[float, ...]] = field(factory=dict)
    split: str = ""
    vectors: tuple[tuple[str, ...], ...] = ()
    conserved: Mapping[str, tuple[str, ...]] = field(factory=dict)
    missing: float | None = None
    lengths: tuple[int, ...] = ()

    def __attrs_post_init__(self) -> None:
        if len(self.boundary) == 1:  # of all axes
            object.__setattr__(self, "boundary", self.boundary * len(self.grid))
        if len(self.boundary) != len(self.grid):
            raise ValueError(f"boundary is that of {len(self.boundary)} axes, but the grid is {self.grid}")
        if self.lengths and (len(self.lengths) != self.trajectories or max(self.lengths) != self.frames):
            raise ValueError(
                f"lengths has {len(self.lengths)} entries of at most {max(self.lengths)} frames, but there are "
                f"{self.trajectories} trajectories, the longest of {self.frames} frames"
            )
        if any(length < 0 for length in self.lengths):
            raise ValueError(f"lengths has {min(self.lengths)}; no trajectory has fewer than 0 frames")
        if len(set(self.lengths)) == 1:  # one way to say it, so that equal data have equal metadata
            object.__setattr__(self, "lengths", ())
        for name, values in self.parameters.items():
            if len(values) not in (1, self.trajectories):
                raise ValueError(
                    f"parameter '{name}' has {len(values)} values for {self.trajectories} trajectories; it takes one "
                    "for all, or one for each"
                )
        for what, groups in (("vectors", self.vectors), ("conserved", tuple(self.conserved.values()))):
            unknown = [name for group in groups for name in group if name not in self.channels]
            if unknown:
                raise ValueError(f"{what} names '{unknown[0]}', which is none of the channels {self.channels}")

    def length(self, trajectory: int) -> int:
        """How many frames a trajectory has."""
        return self.lengths[trajectory] if self.lengths else self.frames

    def value(self, parameter: str, trajectory: int) -> float:
        """A parameter of a trajectory; NaN where it is not known."""
        values = self.parameters.get(parameter, ())
        return float("nan") if not values else values[trajectory if len(values) > 1 else 0]


_LATER = ("vectors", "conserved", "missing", "lengths")


def facts(metadata: Metadata) -> dict[str, Any]:
    """The metadata as plain values, by which what was made of the data is known.

    What came to the metadata later is left out where it says nothing, so that what was made before is found.
    """
    record = attrs.asdict(metadata, filter=lambda attribute, value: attribute.name not in _LATER or bool(value))
    if metadata.missing is not None:
        record["missing"] = repr(metadata.missing)
    return {**record, "boundary": boundary_in_words(metadata.boundary)}


def axes_in_words(boundary: Sequence[Sides]) -> tuple[str, ...]:
    """A word for each axis, such as `periodic`, or `wall to open` where its sides differ; Metadata takes them back."""
    return tuple(_TO.join(dict.fromkeys(side.name.lower() for side in sides)) for sides in boundary)


def boundary_in_words(boundary: Sequence[Sides]) -> str:
    """`periodic`, or by axis where they differ: `x open, y wall to slip`."""
    axes = axes_in_words(boundary)
    if len(set(axes)) == 1:
        return axes[0]
    return ", ".join(f"{axis} {words}" for axis, words in zip("xyz", axes, strict=False))
