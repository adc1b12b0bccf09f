"""Arrays of one's own: NumPy, Zarr, or a dataset of an HDF5 or MATLAB file, with the axes named in the settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

from attrs import field, frozen
from attrs.validators import gt, optional

from opframe_registry import (
    UNCHANGED,
    Boundary,
    Component,
    ConfigError,
    Dataset,
    Location,
    Split,
    Trajectories,
    hookimpl,
)

_LETTERS = "n trajectory, t time, c channel, x y z space, 1 for an axis of length one"


def letters(axes: str) -> str:
    """Axes without spaces and commas: one letter each. Raises ConfigError."""
    found = "".join(axes.replace(",", " ").split())
    for letter, times in Counter(found).items():
        if letter not in "ntcxyz1":
            raise ConfigError(f"axes = '{axes}': '{letter}' is no axis; axes are {_LETTERS}")
        if times > 1 and letter != "1":
            raise ConfigError(f"axes = '{axes}': '{letter}' is there {times} times, expected once")
    for letter in "txy" if "z" in found else "tx":
        if letter not in found:
            raise ConfigError(f"axes = '{axes}': '{letter}' is missing; space is x, x y or x y z; axes are {_LETTERS}")
    return found


@final
@frozen(kw_only=True)
class ArrayDataset(Dataset):
    """An array of your own, with its axes named: NumPy, Zarr, HDF5, MATLAB.

    `axes` gives a letter for each axis in the order in which they are stored: n trajectory, t time, c channel,
    x y z space, 1 for an axis of length one; "n t x y c" is an array of shape (N, T, X, Y, C). Without n, each file
    is one trajectory. The URL may hold `*`, for many files, which are taken in the order of their names, and
    `{split}`, for train or test. Without `{split}` the first `train` trajectories are for training and the last
    `test` ones for evaluation.
    """

    name: ClassVar[str] = "array"
    url: Location = field(
        metadata={"help": ".npy, .zarr, .h5 or .mat; * is any part of a name, {split} becomes train or test"}
    )
    axes: str = field(metadata={"help": "a letter for each axis, in order: n t c x y z, 1 for length one"})
    path: str = field(default="", metadata={"help": "path of the array inside an HDF5, Zarr or MATLAB file"})
    channels: tuple[str, ...] | None = field(default=None, metadata={"help": "channel names (default: c0, c1, …)"})
    predicted: tuple[str, ...] | None = field(
        default=None, metadata={"help": "channels that are predicted (default: all)"}
    )
    units: tuple[str, ...] = field(default=(), metadata={"help": "unit of each channel"})
    time_step: float | None = field(
        default=None, validator=optional(gt(0.0)), metadata={"help": "time between two frames"}
    )
    spacing: tuple[float, ...] | None = field(default=None, metadata={"help": "distance of grid points, by axis"})
    boundary: str | tuple[str, ...] = field(
        default="unknown",
        metadata={"help": "kind of boundary, such as periodic; or one for each axis, such as wall, or wall to open"},
    )
    parameters: Mapping[str, float | tuple[float, ...]] = field(
        factory=dict,
        hash=False,
        metadata={"help": "numbers of the equation by name, each one for all trajectories, or a list", **UNCHANGED},
    )
    vectors: tuple[tuple[str, ...], ...] = field(
        default=(), metadata={"help": "channels that are components of one vector, in the order of axes", **UNCHANGED}
    )
    missing: float | None = field(
        default=None, metadata={"help": "value that stands where there is none, such as nan or -999", **UNCHANGED}
    )

    def __attrs_post_init__(self) -> None:
        letters(self.axes)
        self._check_said()

    def _check_said(self) -> None:
        """Raises ConfigError for a boundary that is not known, and for lists where the splits are separate files."""
        for words in (self.boundary,) if isinstance(self.boundary, str) else self.boundary:
            for word in words.split(" to "):
                try:
                    Boundary.of(word)
                except ValueError as error:
                    raise ConfigError(f"boundary: {error}") from None
        for name, values in self.parameters.items():
            if isinstance(values, tuple) and "{split}" in self.url:
                raise ConfigError(
                    f"parameters.{name} is a list, but training and test data lie apart (url = '{self.url}') and may "
                    "not share it; give one number, or data that are cut by 'train' and 'test'"
                )

    def build(self, split: Split, cache: Path) -> Trajectories:
        """Open one split. Raises DataError naming the file."""
        from opframe_array.reader import open_array

        return open_array(self, split)

    @classmethod
    def recognise(cls, url: str, contents: Mapping[str, tuple[int, ...]]) -> Sequence[Mapping[str, Any]]:
        """The orders of axes that fit the largest array; nothing in a file says which one is right."""
        from opframe_array.recognition import readings

        return readings(url, contents)


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    return [ArrayDataset]
