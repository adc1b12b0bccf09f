"""MLflow tracking (https://mlflow.org/docs/latest/tracking)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opframe_loggers.known import read_id, write_id
from opframe_registry import RunError, RunInfo

if TYPE_CHECKING:
    from opframe_loggers import MLflow

_AT_ONCE = 100
"""Settings that MLflow takes in one call."""
_LONGEST = 500
"""Characters of a value that every MLflow takes."""


def begin(settings: MLflow, run: RunInfo) -> Run:
    """Begin a run there, or go on with the one that the run folder names. Raises RunError."""
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise RunError(f'the logger mlflow needs a package: pip install "opframe[mlflow]" ({error})') from error
    path, place = run.folder / "mlflow.json", f"{settings.uri or ''} {settings.experiment}"
    known = read_id(path, place) if run.step else None  # nothing is left of a run that is begun anew
    try:
        client = MlflowClient(tracking_uri=_uri(settings.uri))
        if known is not None:
            client.update_run(known, status="RUNNING")
            return Run(client, known, _last_steps(client, known))
        id_ = _create(client, settings, run)
    except MlflowException as error:
        raise RunError(f"the logger mlflow cannot begin: {error}") from error
    write_id(path, place, id_)
    return Run(client, id_, {})


def _uri(location: str | None) -> str | None:
    """A local path as the URL that MLflow wants."""
    return location if location is None or "://" in location else Path(location).absolute().as_uri()


def _create(client: Any, settings: MLflow, run: RunInfo) -> str:
    """A new run with the settings of the experiment."""
    from mlflow.entities import Param

    found = client.get_experiment_by_name(settings.experiment)
    experiment = found.experiment_id if found else client.create_experiment(settings.experiment)
    id_: str = client.create_run(experiment, run_name=run.title).info.run_id
    params = [Param(_name(key), value[:_LONGEST]) for key, value in _flat(run.settings)]
    for first in range(0, len(params), _AT_ONCE):
        client.log_batch(id_, params=params[first : first + _AT_ONCE])
    return id_


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The values of nested tables, as `datasets.0.url`."""
    if isinstance(value, Mapping):
        items = [(str(name), item) for name, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        yield key, str(value)
        return
    for name, item in items:
        yield from _flat(item, f"{key}.{name}".lstrip("."))


def _name(name: str) -> str:
    """A name without the characters that MLflow does not take."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)


def _last_steps(client: Any, id_: str) -> dict[str, int]:
    """The last step of every number that a run has."""
    names = client.get_run(id_).data.metrics
    return {name: max(entry.step for entry in client.get_metric_history(id_, name)) for name in names}


class Run:
    """A run there. `known` has the last step of what it has said before, which is not said again.

    MLflow cannot forget a number, and what is trained again from a checkpoint comes to the same.
    """

    def __init__(self, client: Any, id_: str, known: Mapping[str, int]) -> None:
        self._client, self._id, self._known = client, id_, known

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """The numbers, as `kind/name`."""
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        named = {_name(f"{kind}/{name}"): value for name, value in values.items()}
        new = [Metric(name, value, now, step) for name, value in named.items() if step > self._known.get(name, -1)]
        if new:
            self._client.log_batch(self._id, metrics=new)

    def image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """One picture, which comes after the numbers of its kind."""
        kind = name.partition("/")[0]
        if step > max((last for key, last in self._known.items() if key.startswith(f"{kind}/")), default=-1):
            self._client.log_image(self._id, image, key=_name(name), step=step)

    def close(self) -> None:
        """Say that the run has ended."""
        self._client.set_terminated(self._id)
