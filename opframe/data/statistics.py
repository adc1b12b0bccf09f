"""Mean and standard deviation of every channel of a dataset, computed once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import attrs
import numpy as np
from attrs import frozen

from opframe.data.mixture import Source, check_finite
from opframe.data.moments import Moments, moments
from opframe.data.normalization import Normalization
from opframe.data.storage import is_local, local_path
from opframe.files import write_atomically
from opframe_registry import DataError, Dataset, Location, Progress, Split

_BLOCK = 64 * 2**20  # bytes of frames that are read at a time
_WITHOUT_EFFECT = {"label", "weight", "rollout"}  # keys of a dataset that do not change what is averaged


@frozen(kw_only=True)
class Statistics:
    """The statistics of the first `frames` frames of all trajectories of an opened dataset, kept under `cache`."""

    component: Dataset
    source: Source
    frames: int
    cache: Path

    def prepare(self, progress: Progress) -> None:
        """Compute them, unless the cache has them. Raises DataError where a value is not finite."""
        path = self._path()
        if path.exists():
            return
        total = self._moments(progress)
        numbers = attrs.asdict(normalization_of(total))
        record = {**numbers, "channels": self.source.metadata.channels, "values": total.count, "of": self._identity()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(record, indent=1))
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error}); set data.cache to a folder with room") from error

    def read(self) -> Normalization:
        """What was computed. Raises DataError if it is not there."""
        path = self._path()
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return Normalization(mean=tuple(record["mean"]), deviation=tuple(record["deviation"]))
        except FileNotFoundError:
            raise DataError(
                f"{self.source.title}: data.normalization = 'dataset', but the statistics of these data are not known "
                "yet; 'opframe run' computes them"
            ) from None
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path}: cannot be read ({error}); delete it, and 'opframe run' makes it anew") from error

    def _moments(self, progress: Progress) -> Moments:
        blocks, total = list(self._blocks()), None
        for done, (trajectory, start, stop) in enumerate(blocks, start=1):
            values = self.source.read(trajectory, start, stop)
            check_finite(self.source, trajectory, start, values)
            block = moments(values, kept=2).over(0)
            total = block if total is None else total + block
            progress(f"{self.source.title} (statistics)", done, len(blocks))
        assert total is not None, "a dataset without trajectories cannot be opened"
        return total

    def _blocks(self) -> Iterator[tuple[int, int, int]]:
        """Trajectory, first and last frame of pieces that are small enough to be held in memory."""
        metadata = self.source.metadata
        step = max(1, _BLOCK // (4 * len(metadata.channels) * math.prod(metadata.grid)))
        for trajectory in range(metadata.trajectories):
            for start in range(0, self.frames, step):
                yield trajectory, start, min(start + step, self.frames)

    def _path(self) -> Path:
        identity = json.dumps(self._identity(), sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
        return self.cache / "statistics" / f"{self.component.name}-{digest}.json"

    def _identity(self) -> dict[str, Any]:
        """All that the numbers depend on: settings, what the data say of themselves, which frames, and the files."""
        component, metadata = self.component, self.source.metadata
        settings = attrs.asdict(component, filter=lambda attribute, _: attribute.name not in _WITHOUT_EFFECT)
        return {
            "settings": {**settings, "type": component.name, "revision": component.revision},
            "metadata": attrs.asdict(metadata, filter=lambda attribute, _: attribute.name != "parameters"),
            "frames": self.frames,
            "files": _files(component),
        }


def normalization_of(total: Moments) -> Normalization:
    """What brings channels to mean 0 and deviation 1; those that are constant up to rounding are only shifted."""
    constant = total.std <= np.finfo(np.float32).eps * np.abs(total.mean)
    deviation = np.where(constant, 1.0, total.std)
    return Normalization(mean=tuple(total.mean.tolist()), deviation=tuple(deviation.tolist()))


def _files(component: Dataset) -> dict[str, tuple[int, int]]:
    """Size and time of change, in ns, of the local files that the settings name; of remote ones their URL must do."""
    found: dict[str, tuple[int, int]] = {}
    hints = get_type_hints(type(component))
    for attribute in attrs.fields(type(component)):
        url = getattr(component, attribute.name)
        if hints[attribute.name] is not Location or not is_local(url):
            continue
        for path in {Path(local_path(url).replace("{split}", split)) for split in get_args(Split)}:
            found |= {str(file): _stamp(file) for file in (path, *path.rglob("*")) if file.is_file()}
    return found


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
