"""The weights in the checkpoints of a run, without the optimizer's state."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from opframe.checkpoint import latest_step, read_best
from opframe.weights.location import WeightsError

_MODEL = "model."


def chosen_checkpoint(run: Path) -> Path:
    """The best checkpoint of a run, else the latest. Raises WeightsError when there is none."""
    folder = run / "checkpoints"
    best = read_best(folder)
    step = best.step if best is not None else latest_step(folder)
    if step is None:
        raise WeightsError(f"{run}: the run has no checkpoint yet")
    return folder / f"step-{step:08d}"


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, by their names in the state dict. Raises WeightsError."""
    try:
        stored = FileSystemReader(path).read_metadata().state_dict_metadata
        weights = {
            name.removeprefix(_MODEL): torch.empty(kept.size, dtype=kept.properties.dtype)
            for name, kept in stored.items()
            if name.startswith(_MODEL) and isinstance(kept, TensorStorageMetadata)
        }
        with warnings.catch_warnings():  # of torch, that one process loads as one process
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load({"model": weights}, checkpoint_id=path, no_dist=True)
    except (OSError, RuntimeError, ValueError, KeyError, CheckpointException) as error:
        raise WeightsError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    return weights
