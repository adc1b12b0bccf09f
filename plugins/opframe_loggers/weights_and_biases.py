"""Weights & Biases (https://docs.wandb.ai)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opframe_loggers.known import read_id, write_id
from opframe_registry import RunError, RunInfo

if TYPE_CHECKING:
    from opframe_loggers import WeightsAndBiases


def begin(settings: WeightsAndBiases, run: RunInfo) -> Run:
    """Begin a run there, or go on with the one that the run folder names. Raises RunError."""
    try:
        import wandb
    except ImportError as error:
        raise RunError(f'the logger wandb needs a package: pip install "opframe[wandb]" ({error})') from error
    path, place = run.folder / "wandb.json", f"{settings.entity or ''}/{settings.project}"
    known = read_id(path, place) if run.step else None  # nothing is left of a run that is begun anew
    id_ = known or uuid.uuid4().hex[:12]
    try:
        live = wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=settings.group,
            mode=settings.mode,
            name=run.title,
            config=dict(run.settings),
            dir=str(run.folder),
            id=id_,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )
    except wandb.Error as error:
        raise RunError(f"the logger wandb cannot begin: {error}") from error
    write_id(path, place, id_)
    return Run(live, wandb.Image)


class Run:
    """A run there. What comes at a step that it is past already is left out by Weights & Biases itself."""

    def __init__(self, run: Any, image: Any) -> None:
        self._run, self._image = run, image

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """The numbers, as `kind/name`; those of the final report stand in the summary, also where it is made again."""
        named = {f"{kind}/{name}": value for name, value in values.items()}
        self._run.log(named, step=step)
        if kind == "test":
            self._run.summary.update(named)

    def image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """One picture."""
        self._run.log({name: self._image(image)}, step=step)

    def close(self) -> None:
        """Send or keep what is waiting."""
        self._run.finish()
