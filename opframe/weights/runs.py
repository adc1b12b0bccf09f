"""The weights in the checkpoints of a run, without the optimizer's state."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch
from attrs import frozen
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from opframe.weights.callback_state import standing_for_weights
from opframe.weights.checkpoints import checkpoint_path, damage, latest_step, read_best, steps_of
from opframe.weights.location import WeightsError
from opframe.weights.stored import load_stored, read_metadata

_MODEL = "model."


@frozen(kw_only=True)
class Chosen:
    """A checkpoint of a run, and in words how it came to be chosen."""

    path: Path
    step: int
    how: str


def chosen_checkpoint(run: Path, which: str = "latest") -> Chosen:
    """The `latest` checkpoint of a run, the `best` by its error while training, or that of a step.

    Raises WeightsError when there is no such checkpoint.
    """
    folder = run / "checkpoints"
    if latest_step(folder) is None:
        raise WeightsError(f"{run}: the run has no checkpoint yet")
    step, how = _chosen(run, folder, which)
    path = checkpoint_path(folder, step)
    with suppress(WeightsError):  # damage is said where it is read
        if callback := standing_for_weights(path)[0]:
            how = f"{how}; weights as the callback {callback} keeps them"
    return Chosen(path=path, step=step, how=how)


def _chosen(run: Path, folder: Path, which: str) -> tuple[int, str]:
    """The step, and how it was chosen."""
    steps = steps_of(folder)
    if which == "latest":
        return steps[-1], "the last of its run; nothing was selected"
    if which == "best":
        best = read_best(folder)
        if best is None:
            raise WeightsError(
                f"{run}: none of its checkpoints is the best, since none was evaluated (trainer.evaluate_every, by "
                "validation data) or the one that was is gone; take the latest"
            )
        if best.split == "test":  # as it was before there were validation data
            return best.step, "selected by the least error on the test data, which therefore no longer tests it"
        return best.step, f"selected by the least error on validation data, {best.error:.4g}"
    if not which.isdecimal() or int(which) not in steps:
        known = ", ".join(map(str, steps))
        raise WeightsError(f"{run}: there is no checkpoint '{which}'; expected 'latest', 'best' or a step of {known}")
    return int(which), "asked for by its step"


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, by their names in the state dict: a callback's in their place, if it keeps such.

    Raises WeightsError, also where it is damaged, and RunError for one of a newer opframe.
    """
    wrong = damage(path)
    if wrong is not None:
        raise WeightsError(f"{path}: cannot be read, as it is damaged: {wrong}; take another one")
    weights = {
        name.removeprefix(_MODEL): torch.empty(kept.size, dtype=kept.properties.dtype)
        for name, kept in read_metadata(path).state_dict_metadata.items()
        if name.startswith(_MODEL) and isinstance(kept, TensorStorageMetadata)
    }
    load_stored(path, {"model": weights}, alone=True)
    _, others = standing_for_weights(path)
    return weights | {name: weight for name, weight in others.items() if name in weights}
