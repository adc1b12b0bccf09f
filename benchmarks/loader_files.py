"""The datasets that the benchmark of the loader reads, and the straightforward way to read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from attrs import frozen
from rich.console import Console
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from opframe.config.building import open_split
from opframe.tools.packing import pack
from opframe.tools.packing_plan import Packing
from opframe.tools.selection import Part
from opframe_prepared import Prepared
from opframe_registry import Location, Window

CHANNELS, LENGTH = 4, 11


@frozen
class Case:
    """A dataset, and what its file looks like."""

    label: str
    trajectories: int
    frames: int
    channels: int
    side: int


@frozen
class Shuffled:
    """Random windows, a pure function of seed and step, from all datasets alike."""

    cases: Sequence[Case]

    def __call__(self, seed: int, step: int, size: int) -> list[Window]:
        """The windows of one batch."""
        numbers = np.random.default_rng((seed, step)).integers(2**62, size=(size, 3)).tolist()
        chosen = [(number % len(self.cases), trajectory, start) for number, trajectory, start in numbers]
        return [
            Window(dataset, trajectory % case.trajectories, start % (case.frames - LENGTH + 1))
            for dataset, trajectory, start in chosen
            for case in [self.cases[dataset]]
        ]


class Straightforward(Dataset[Tensor]):
    """Samples by way of whole trajectories; they keep the order of axes of the files, (X, Y, T, C)."""

    def __init__(self, paths: Sequence[Path], side: int, windows: Sequence[Window]) -> None:
        self.paths, self.side, self.windows = paths, side, windows
        self.files: dict[int, h5py.File] = {}

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Tensor:
        window = self.windows[index]
        if window.dataset not in self.files:
            self.files[window.dataset] = h5py.File(self.paths[window.dataset], "r")
        whole = torch.from_numpy(self.files[window.dataset]["data"][window.trajectory]).permute(2, 3, 0, 1)
        whole = interpolate(whole, size=(self.side, self.side), mode="bilinear").permute(2, 3, 0, 1)
        padded = torch.ones(*whole.shape[:3], CHANNELS)
        padded[..., : whole.shape[3]] = whole
        return padded[:, :, window.start : window.start + LENGTH]


def path_of(folder: Path, layout: str, case: Case) -> Path:
    """Where the file of a dataset lies, in the published layout or packed."""
    return folder / layout / case.label / "train.h5"


def write(folder: Path, case: Case) -> None:
    """A file of noise in the published layout, and the same packed."""
    published = path_of(folder, "published", case)
    published.parent.mkdir(parents=True)
    shape = (case.trajectories, case.side, case.side, case.frames, case.channels)
    with h5py.File(published, "w") as file:
        file["data"] = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    component = component_of(published, case.label)
    part = Part(component=component, split="train", trajectories=open_split(component, "train", folder))
    pack(Packing(part=part, path=path_of(folder, "packed", case)), Console(quiet=True))


def component_of(path: Path, label: str) -> Prepared:
    """The dataset of a file."""
    return Prepared(url=Location(str(path.with_name("{split}.h5"))), label=label)
