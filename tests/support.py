"""Pieces that several tests use: small files in the prepared layout, and a small experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from opframe_registry import Adapted, Backbone, Change, Fields

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[1]


def waves(trajectories: int, frames: int, grid: int, channels: int = 1) -> NDArray[np.float32]:
    """Travelling waves (N, X, Y, T, C): smooth, cheap, and different in every trajectory."""
    x = np.arange(grid) / grid
    n, t, c = np.arange(trajectories), np.arange(frames), np.arange(channels)
    phase = x[:, None, None, None] + 2 * x[None, :, None, None] + 0.02 * t[None, None, :, None] + 0.3 * c
    return np.sin(2 * np.pi * (phase[None] + 0.17 * n[:, None, None, None, None])).astype("f4")


def write_prepared(path: Path, data: NDArray[np.float32], **options: object) -> Path:
    """A file in the prepared layout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=data, **options)
    return path


def write_padded(path: Path, lengths: Sequence[int], grid: int = 16, channels: int = 1) -> NDArray[np.float32]:
    """Waves of different lengths in the prepared layout, with nan behind the end of each, which they return whole."""
    data = waves(len(lengths), max(lengths), grid, channels)
    padded = np.where(
        np.arange(max(lengths))[:, None] < np.reshape(lengths, (-1, 1, 1, 1, 1)), data, np.float32(np.nan)
    )
    write_prepared(path, padded)
    with h5py.File(path, "r+") as file:
        file["lengths"] = np.asarray(lengths)
    return data


def adapted_weight(
    backbone: Backbone, name: str, fresh: Tensor, source: Fields, target: Fields, weights: Mapping[str, Tensor]
) -> Adapted | None:
    """What a backbone makes of one of the trained weights, which is to replace a fresh one."""
    return backbone.adapt(
        Change(name=name, weight=weights[name], fresh=fresh, source=source, target=target, weights=weights)
    )


EXPERIMENT = """
[run]
folder = "run"
[data]
grid = [16, 16]
history = 4
batch_size = 4
[[datasets]]
type = "prepared"
label = "one"
url = "one.h5"
test = 2
[[datasets]]
type = "prepared"
label = "two"
weight = 2.0
url = "two.h5"
test = 2
[sampler]
type = "balanced"
[backbone]
type = "dpot"
width = 32
depth = 1
heads = 2
patch = 4
[objective]
type = "relative_l2"
noise = 1e-4
[optimizer]
type = "adam"
[schedule]
type = "one_cycle"
[trainer]
steps = 8
device = "cpu"
checkpoint_every = 4
log_every = 2
[evaluation]
figures = false
"""


def write_experiment(folder: Path) -> Path:
    """A small experiment in a folder, with its two datasets of one and two channels."""
    write_prepared(folder / "one.h5", waves(6, 12, 16))
    write_prepared(folder / "two.h5", waves(6, 10, 16, channels=2))
    path = folder / "experiment.toml"
    path.write_text(EXPERIMENT)
    return path


def saved_state(run: Path, step: int) -> dict[str, Any]:
    """The whole state of a checkpoint."""
    converted = run.with_name(f"{run.name}-{step}.pt")
    dcp_to_torch_save(run / "checkpoints" / f"step-{step:08d}", converted)
    state: dict[str, Any] = torch.load(converted, weights_only=False)
    return state


def assert_same_training(run: Path, other: Path, step: int) -> None:
    """Weights, optimizer and schedule of two runs are equal to the last bit."""
    one, two = saved_state(run, step), saved_state(other, step)
    assert one["model"].keys() == two["model"].keys()
    for name, weight in one["model"].items():
        assert torch.equal(weight, two["model"][name]), name
    for name, state in one["optimizer"]["state"].items():
        assert all(torch.equal(value, two["optimizer"]["state"][name][key]) for key, value in state.items()), name
    assert one["schedule"] == two["schedule"]


PUBLISHED_KEYS = {
    "embed_dim": "width",
    "depth": "depth",
    "n_blocks": "heads",
    "patch_size": "patch",
    "modes": "modes",
    "mlp_ratio": "mlp_ratio",
    "out_layer_dim": "output_width",
    "normalize": "normalize",
    "time_agg": "time_aggregation",
    "n_cls": "classes",
}
"""Our keys of a patch transformer by the names that the published code gives them."""
