"""CFDBench, read from the case folders as they are published (Luo, Chen and Zhang, 2023)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, final

from attrs import field, frozen
from attrs.validators import deep_iterable, gt, in_, min_len

from opframe_registry import LATER, Component, ConfigError, Dataset, Location, Split, Trajectories, hookimpl

PROBLEMS = ("cavity", "tube", "dam", "cylinder")
SUBSETS = ("prop", "bc", "geo")
_CASE = re.compile(r"(?:(cavity|tube|dam|cylinder)/)?(?:prop|bc|geo)/case\d+/u\.npy(?::|$)")


@final
@frozen(kw_only=True)
class CFDBench(Dataset):
    """CFDBench: flow in a cavity, a tube, over a dam, around a cylinder, in many geometries and fluids.

    The URL is the folder of one problem, with {prop,bc,geo}/case####/{u.npy,v.npy,case.json}, or the folder of
    several, of which `problems` says which are read. Each case is cut into trajectories of `frames` frames; the last
    one is filled up with copies of the final frame. A mask, which is input only, is 1 in the fluid and 0 in walls and
    in the rows and columns that the published code adds for inflow and walls.

    The published split shuffles the cases of each problem (Python's random.Random(0)) and takes 80 % for training, 10 %
    for validation and the rest for testing, so that no case is in two of them. Some cases have the same parameters;
    with `split_by` = "parameters" those stay together too.
    """

    name: ClassVar[str] = "cfdbench"
    url: Location = field(metadata={"help": "folder of one problem (cavity, tube, dam, cylinder), or of several"})
    problems: tuple[str, ...] = field(
        default=(),
        validator=deep_iterable(in_(PROBLEMS)),
        metadata={"help": "problems read where the URL is the folder of several"},
    )
    subsets: tuple[str, ...] = field(
        default=SUBSETS,
        validator=[min_len(1), deep_iterable(in_(SUBSETS))],
        metadata={"help": "subsets read: prop varies the fluid, bc the boundary, geo the geometry"},
    )
    frames: int = field(default=20, validator=gt(0), metadata={"help": "frames of a trajectory cut from a case"})
    grid: tuple[int, int] | None = field(
        default=None, metadata={"help": "grid to which all are resized; needed where problems have different ones"}
    )
    split_by: Literal["case", "parameters"] = field(
        default="case",
        metadata={"help": "what is never in two splits: a case (published), or cases with equal parameters"},
    )
    obstacles: Literal["zero", "missing"] = field(
        default="zero",
        metadata={
            "help": "the flow inside the cylinder and the dam: zero (published), or missing, so that it counts nowhere",
            **LATER,
        },
    )
    test_split: Literal["test", "valid"] = field(
        default="test", metadata={"help": "which of the three parts is used for evaluation"}
    )

    @grid.validator
    def _check_grid(self, _: object, value: tuple[int, int] | None) -> None:
        if value is not None and min(value) < 1:
            raise ConfigError(f"grid = {list(value)}: expected two numbers of at least 1")

    def build(self, split: Split, cache: Path) -> Trajectories:
        """Open one split. Raises DataError naming the folder or file."""
        from opframe_cfdbench.reader import open_cfdbench

        return open_cfdbench(self, split)

    @classmethod
    def recognise(cls, url: str, contents: Mapping[str, tuple[int, ...]]) -> Mapping[str, Any] | None:
        """The folder of a problem, which has its published name, or a folder of such folders."""
        found = [match[1] for match in map(_CASE.match, contents) if match]
        if not found:
            return None
        problems = [name for name in PROBLEMS if name in found]
        if problems:
            return {"url": url, "problems": problems}
        return {"url": url} if url.rstrip("/").rpartition("/")[2] in PROBLEMS else None


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    return [CFDBench]
