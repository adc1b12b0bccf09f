"""Whether a run that goes on is given the data that it was trained on so far."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from opframe.config.settings import Experiment
from opframe.files.atomic import write_atomically
from opframe.files.stamps import stamps
from opframe.mixture.source import Source
from opframe.run.assembly import Sources
from opframe_registry import Dataset, RunError

_NAME = "data.json"
_TRAJECTORIES = 8
"""So many of each dataset are looked at, the first and the last among them: the first and last frame of each."""


def data_in_words(folder: Path, experiment: Experiment, sources: Sources) -> list[str]:
    """Compare training data with those that the run began with; what there is to say. Raises RunError.

    Files of another size or date are looked into: a copy on another machine is as good, other numbers are not. Data
    that opframe has solved itself are not asked for, as they follow from the config; a run of before said nothing.
    """
    path = folder / _NAME
    if not path.exists():
        return []
    try:
        then = {title: (each["files"], each["sha256"]) for title, each in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{path}: cannot be read ({error}); whether the data are those of then is not known"]
    pairs = zip(experiment.datasets, sources.train, strict=True)
    return [
        line
        for component, source in pairs
        if source.title in then
        for line in _differences(component, source, *then[source.title])
    ]


def remember(folder: Path, experiment: Experiment, sources: Sources) -> None:
    """Write down what the training data are."""
    facts = {}
    for component, source in zip(experiment.datasets, sources.train, strict=True):
        files = _files(component)
        if files:
            facts[source.title] = {"files": files, "sha256": _digest(source)}
    if facts:
        write_atomically(folder / _NAME, json.dumps(facts, indent=1))
    else:  # what another experiment left that never came to a checkpoint
        (folder / _NAME).unlink(missing_ok=True)


def _differences(component: Dataset, source: Source, then: Mapping[str, Any], digest: str) -> list[str]:
    now = _files(component)
    changed = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    if not changed:
        return []
    named = f"{changed[0]}{f' and {len(changed) - 1} more' if len(changed) > 1 else ''}"
    if _digest(source) != digest:
        raise RunError(
            f"{source.title}: the data are others than those that this run was trained on so far ({named}); put the "
            "files of then back, or choose another run.folder"
        )
    return [f"{source.title}: the files are others than when the run began ({named}); what was compared is the same"]


def _files(component: Dataset) -> dict[str, list[int | str]]:
    return {name: list(stamp) for name, stamp in component.identity(stamps).files.items()}


def _digest(source: Source) -> str:
    """A digest of some frames, in the data's own units."""
    found = hashlib.sha256()
    count = source.metadata.trajectories
    for trajectory in np.unique(np.linspace(0, count - 1, min(count, _TRAJECTORIES)).astype(int)).tolist():
        for frame in (0, source.metadata.length(trajectory) - 1):
            found.update(np.ascontiguousarray(source.read(trajectory, frame, frame + 1)).tobytes())
    return found.hexdigest()
