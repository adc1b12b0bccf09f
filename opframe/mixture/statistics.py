"""Mean and standard deviation of every channel of a dataset, computed once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import attrs
import numpy as np
from attrs import frozen

from opframe.files.atomic import write_atomically
from opframe.files.location import is_local, local_path
from opframe.files.stamps import stamps
from opframe.mixture.moments import Moments, moments
from opframe.mixture.normalization import Normalization
from opframe.mixture.source import Source, read_finite
from opframe_registry import DataError, Dataset, Location, Progress, Split, Stamp
from opframe_registry.metadata import facts

_BLOCK = 64 * 2**20  # bytes of frames that are read at a time


@frozen(kw_only=True)
class Statistics:
    """The statistics of the first `frames` frames of all trajectories of an opened dataset, kept under `cache`.

    Of a trajectory that is shorter all frames count.
    """

    component: Dataset
    source: Source
    frames: int
    cache: Path

    @property
    def known(self) -> bool:
        """Whether the cache has them."""
        return self._found(self._identity()) is not None

    def prepare(self, progress: Progress) -> None:
        """Compute them, unless the cache has them. Raises DataError where a value is not finite."""
        identity = self._identity()
        found, path = self._found(identity), self._path(identity)
        if found is not None:
            if found != path:  # from now on they are known to be of the files that are there now
                os.replace(found, path)
            return
        total = self._moments(progress)
        numbers = attrs.asdict(normalization_of(total))
        record = {**numbers, "channels": self.source.metadata.channels, "values": total.count, "of": identity}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(record, indent=1))
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error}); set data.cache to a folder with room") from error

    def read(self) -> Normalization:
        """What was computed. Raises DataError if it is not there."""
        path = self._found(self._identity())
        if path is None:
            raise DataError(
                f"{self.source.title}: data.normalization = 'dataset', but the statistics of these data are not known "
                "yet; 'opframe run' computes them"
            )
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return Normalization(mean=tuple(record["mean"]), deviation=tuple(record["deviation"]))
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path}: cannot be read ({error}); delete it, and 'opframe run' makes it anew") from error

    def _moments(self, progress: Progress) -> Moments:
        blocks, total = list(self._blocks()), None
        for done, (trajectory, start, stop) in enumerate(blocks, start=1):
            values = read_finite(self.source, trajectory, start, stop)
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
            stop = min(self.frames, metadata.length(trajectory))
            for start in range(0, stop, step):
                yield trajectory, start, min(start + step, stop)

    def _found(self, identity: Mapping[str, Any]) -> Path | None:
        """The file that has them.

        Before, only files that a setting names as a path had stamps. A file made then is taken if it is younger than
        all local files are now; whether remote ones have changed since nobody can know.
        """
        path = self._path(identity)
        if path.exists():
            return path
        earlier = self._path({**identity, "files": _named_files(self.component)})
        if not earlier.exists():
            return None
        times = [stamp[1] for stamp in identity["files"].values() if isinstance(stamp[1], int)]
        return earlier if earlier.stat().st_mtime_ns > max(times, default=0) else None

    def _path(self, identity: Mapping[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        return self.cache / "statistics" / f"{self.component.name}-{digest}.json"

    def _identity(self) -> dict[str, Any]:
        """All that the numbers depend on: settings, what the data say of themselves, which frames, and the files."""
        known, metadata = self.component.identity(stamps), self.source.metadata
        return {
            "settings": known.settings,
            "metadata": {name: value for name, value in facts(metadata).items() if name != "parameters"},
            "frames": self.frames,
            "files": known.files,
        }


def normalization_of(total: Moments) -> Normalization:
    """What brings channels to mean 0 and deviation 1; those that are constant up to rounding are only shifted."""
    constant = total.std <= np.finfo(np.float32).eps * np.abs(total.mean)
    deviation = np.where(constant, 1.0, total.std)
    return Normalization(mean=tuple(total.mean.tolist()), deviation=tuple(deviation.tolist()))


def _named_files(component: Dataset) -> dict[str, Stamp]:
    """The stamps that files of statistics were known by before: of local files, where a setting is a plain path."""
    found: dict[str, Stamp] = {}
    hints = get_type_hints(type(component))
    for attribute in attrs.fields(type(component)):
        url = getattr(component, attribute.name)
        if hints[attribute.name] is not Location or not is_local(url):
            continue
        for path in {Path(local_path(url).replace("{split}", split)) for split in get_args(Split)}:
            files = [file for file in (path, *path.rglob("*")) if file.is_file()]
            found |= {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in files}
    return found
