"""Loggers that are broken on purpose: each is caught by the name of the promise that it breaks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from attrs import define, field, frozen
from numpy.typing import NDArray

from opframe_registry import Logger, RunInfo
from opframe_registry.testing import broken_promises


@define
class Lines:
    """A line for every record. `forgets` on a resume, `repeats` what is beyond the step, is `silent`."""

    run: RunInfo
    forgets: bool = False
    repeats: bool = False
    silent: bool = False
    file: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        path = self.run.folder / "lines.txt"
        lines = path.read_text().splitlines(keepends=True) if path.exists() and not self.forgets else ["0 begun\n"]
        path.write_text("".join(line for line in lines if self.repeats or int(line.split()[0]) <= self.run.step))
        self.file = path.open("a")

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        if not self.silent:
            self.file.write(f"{step} {kind} {dict(values)}\n")

    def image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """Nothing."""

    def close(self) -> None:
        self.file.close()


@frozen(kw_only=True)
class Good(Logger):
    """Lines in a text file."""

    name: ClassVar[str] = "good"
    faults: ClassVar[Mapping[str, bool]] = {}

    def build(self, run: RunInfo) -> Lines:
        return Lines(run, **self.faults)


class Silent(Good):
    """Records that a run has begun, and nothing else."""

    faults: ClassVar[Mapping[str, bool]] = {"silent": True}


class Forgetful(Good):
    """Begins the file anew where a run goes on."""

    faults: ClassVar[Mapping[str, bool]] = {"forgets": True}


class Repeating(Good):
    """Appends, whatever is there."""

    faults: ClassVar[Mapping[str, bool]] = {"repeats": True}


def test_a_good_one_breaks_no_promise(tmp_path: Path) -> None:
    assert not broken_promises(Good(), tmp_path)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Silent, "what_is_logged_is_recorded"),
        (Forgetful, "what_was_recorded_is_kept"),
        (Repeating, "a_step_that_is_done_again_is_recorded_once"),
    ],
)
def test_a_broken_one_breaks_this_promise_alone(broken: type[Good], promise: str, tmp_path: Path) -> None:
    assert list(broken_promises(broken(), tmp_path)) == [promise]
