"""Solved datasets: made once, whole or not at all, and the same however they are made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import h5py
import numpy as np
import pytest
import torch
from attrs import frozen
from torch import Tensor

from opframe.readers.solved import open_solved, prepare_solved, solved_path
from opframe_registry import Catalog, DataError, Dataset, Metadata


@frozen
class Decay:
    """u(t) = u(0) exp(−t) from uniform noise; goes wrong in one frame if told to."""

    wrong_frame: int | None = None
    wrong: str = "interrupt"

    def initial(self, generator: torch.Generator) -> Tensor:
        return torch.rand(1, 4, 4, generator=generator)

    def frames(self, initial: Tensor) -> Iterator[Tensor]:
        for frame in range(5):
            if frame == self.wrong_frame and self.wrong == "interrupt":
                raise KeyboardInterrupt
            yield initial * (torch.inf if frame == self.wrong_frame else 0.5**frame)


METADATA = Metadata(trajectories=6, frames=5, grid=(4, 4), channels=("u",), predicted=("u",), time_step=0.5)


@pytest.fixture
def component(catalog: Catalog) -> Dataset:
    """Stands for the settings; only its fields matter here."""
    return catalog.get(Dataset, "navier_stokes")(label="decay")


def solve(
    component: Dataset, cache: Path, solver: Decay, together: int = 4, metadata: Metadata = METADATA
) -> list[str]:
    """Prepare both splits, one trajectory for testing; returns what was reported."""
    said: list[str] = []
    report = lambda what, done, total: said.append(f"{what} {done}/{total}")  # noqa: E731
    both = {"train": metadata, "test": attrs.evolve(metadata, trajectories=1)}
    prepare_solved(component, solver, both.__getitem__, cache, report, together)
    return said


def test_a_dataset_is_solved_once_with_progress_and_read_back(component: Dataset, tmp_path: Path) -> None:
    said = solve(component, tmp_path, Decay())
    assert said[0] == "decay (train) 4/30"
    assert "decay (train) 30/30" in said
    assert said[-1] == "decay (test) 5/5"
    assert solve(component, tmp_path, Decay()) == []
    trajectories = open_solved(component, METADATA, "train", tmp_path)
    first, later = trajectories.read(3, 0, 1), trajectories.read(3, 3, 5)
    assert np.allclose(later[0], first[0] / 8)
    with h5py.File(solved_path(component, "train", 6, tmp_path)) as file:
        assert list(file["data"].attrs["channels"]) == ["u"]


def test_a_trajectory_does_not_depend_on_how_many_are_solved_or_together(component: Dataset, tmp_path: Path) -> None:
    solve(component, tmp_path / "a", Decay(), together=4)
    solve(component, tmp_path / "b", Decay(), together=1, metadata=attrs.evolve(METADATA, trajectories=3))
    one = open_solved(component, METADATA, "train", tmp_path / "a")
    two = open_solved(component, attrs.evolve(METADATA, trajectories=3), "train", tmp_path / "b")
    assert all(np.array_equal(one.read(index, 0, 5), two.read(index, 0, 5)) for index in range(3))


def test_what_changes_the_numbers_changes_the_file_and_the_label_does_not(component: Dataset, tmp_path: Path) -> None:
    path = solved_path(component, "train", 6, tmp_path)
    assert solved_path(attrs.evolve(component, label="other", weight=3.0), "train", 6, tmp_path) == path
    assert solved_path(attrs.evolve(component, viscosity=1e-4), "train", 6, tmp_path) != path


def test_an_interrupted_preparation_leaves_nothing(component: Dataset, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        solve(component, tmp_path, Decay(wrong_frame=3))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_killed_preparation_is_done_again(catalog: Catalog, tmp_path: Path) -> None:
    component = catalog.get(Dataset, "radial_dam_break")(train=4, test=2, resolution=16, frames=11)
    code = f"""
import os
from pathlib import Path
from opframe_registry import Dataset, discover
component = discover().get(Dataset, "radial_dam_break")(train=4, test=2, resolution=16, frames=11)
component.prepare(Path({str(tmp_path)!r}), lambda what, done, total: os.kill(os.getpid(), 9) if done > 20 else None)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with pytest.raises(DataError, match="has not been prepared yet"):
        component.build("train", tmp_path)
    component.prepare(tmp_path, lambda *_: None)
    assert component.build("train", tmp_path).read(3, 0, 11).shape == (11, 1, 16, 16)
    assert list(tmp_path.rglob("*.partial")) == []


def test_a_solution_that_blows_up_is_an_error_that_names_the_frame(component: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"decay: the solution became infinite in frame 2 \(train\)"):
        solve(component, tmp_path, Decay(wrong_frame=2, wrong="infinite"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
