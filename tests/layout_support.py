"""What the tests of published layouts share: values without symmetry, and the promises that every reader keeps."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from opframe.mixture.source import Source, evaluation_mask, read_frames
from opframe_registry import Catalog, Dataset, Fields, Trajectories

LAYOUTS = Path(__file__).parent / "layouts"


def opened(catalog: Catalog, name: str, url: Path | str, split: str = "test", **keys: object) -> Trajectories:
    return catalog.get(Dataset, name)(url=str(url), **keys).build(split, Path())


def numbers(*shape: int) -> NDArray[np.float32]:
    """Values that are all different, so that no axis can be taken for another."""
    return np.arange(np.prod(shape), dtype="f4").reshape(shape)


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays of an HDF5 file, by their paths."""
    found: dict[str, tuple[int, ...]] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item.shape} if isinstance(item, h5py.Dataset) else {}))
    return found


def assert_reads(trajectories: Trajectories, expected: NDArray[np.float32]) -> None:
    """All windows of all trajectories are those of (N, T, C, *grid), in the mixture too and in another process."""
    assert_windows(trajectories, expected)
    metadata = trajectories.metadata
    count, frames = expected.shape[:2]
    assert all(len(values) in (1, count) for values in metadata.parameters.values())
    again = pickle.loads(pickle.dumps(trajectories))
    for trajectory in range(count):
        assert np.array_equal(again.read(trajectory, 0, frames), expected[trajectory])
    assert_in_mixture(trajectories, expected)


def assert_windows(trajectories: Trajectories, expected: NDArray[np.float32]) -> None:
    """All windows of all trajectories are those of (N, T, C, *grid)."""
    metadata = trajectories.metadata
    count, frames = expected.shape[:2]
    assert (metadata.trajectories, metadata.frames, metadata.grid) == (count, frames, expected.shape[3:])
    assert len(metadata.channels) == len(metadata.units) == expected.shape[2]
    for trajectory in range(count):
        for start in range(frames):
            for stop in range(start + 1, frames + 1):
                window = trajectories.read(trajectory, start, stop)
                assert window.dtype == np.float32
                assert np.array_equal(window, expected[trajectory, start:stop])


def assert_in_mixture(trajectories: Trajectories, expected: NDArray[np.float32]) -> None:
    """The mixture reads the same, and counts errors in the predicted channels alone."""
    source = Source(title="layout", weight=1.0, rollout=1, trajectories=trajectories)
    metadata = trajectories.metadata
    fields = Fields(channels=metadata.channels, grid=metadata.grid, history=1)
    frames = read_frames(source, metadata.trajectories - 1, 0, metadata.frames, fields)
    assert torch.equal(frames, torch.from_numpy(np.ascontiguousarray(expected[-1])))
    counted = evaluation_mask(metadata, fields).flatten(1).any(1)
    assert counted.tolist() == [name in metadata.predicted for name in metadata.channels]
