"""What the normalization of a dataset learns of its training data, computed once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args, get_type_hints

import attrs
import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from opframe.config.building import build_normalization
from opframe.config.structure import to_tables
from opframe.files.atomic import write_atomically
from opframe.files.location import is_local, local_path
from opframe.files.once import made_once
from opframe.files.shards import Shard, all_left, forget_all
from opframe.files.stamps import stamps
from opframe.mixture.normalization import Array, arrays, tensors
from opframe.mixture.source import Source, is_there, read_finite
from opframe_registry import DataError, Dataset, Location, Normalization, Normalizer, Progress, Split, Stamp
from opframe_registry.metadata import facts

_BLOCK = 64 * 2**20  # bytes of frames that are read at a time
Piece = tuple[int, int, int]
Summary = Mapping[str, Tensor]
_FIRST = {"type": "dataset"}  # the normalizer that statistics were once all of, whose files do not name it


@frozen(kw_only=True)
class Statistics:
    """What a normalizer learns of the first `frames` frames of all trajectories of an opened dataset, under `cache`.

    Of a trajectory that is shorter all frames count.
    """

    component: Dataset
    source: Source
    frames: int
    cache: Path
    normalizer: Normalizer

    @property
    def known(self) -> bool:
        """Whether the cache has it."""
        return self._found(self._identity()) is not None

    def prepare(self, progress: Progress, summaries: Callable[[], Iterable[Summary]] | None = None) -> None:
        """Learn it, unless the cache has it: of the pieces, or of `summaries` of all of them, in their order.

        Raises DataError where a value is neither finite nor a missing one.
        """
        identity = self._identity()
        found, path = self._found(identity), self._path(identity)
        if found is not None:
            if found != path:  # from now on they are known to be of the files that are there now
                os.replace(found, path)
            return
        with _written(path), made_once(path):
            if not path.exists():
                state = self._learnt(progress, summaries)
                record = {"state": state, "channels": self.source.metadata.channels, "of": identity}
                write_atomically(path, json.dumps(record, indent=1))

    def summarise(self, shard: Shard, progress: Progress) -> None:
        """Look at a part of the pieces, and leave what they say in the cache, unless it is there. Raises DataError."""
        path = self._path(self._identity())
        if self.known or shard.left(path, path.stem) is not None:
            return
        found = self.summary(list(shard.share(self.pieces())), progress)
        with _written(path):
            shard.leave(path, path.stem, _plain(found))

    def merge(self, progress: Progress) -> None:
        """Learn of what shards have left. Raises DataError naming those that have not."""
        path = self._path(self._identity())
        if not self.known:
            self.prepare(progress, lambda: [tensors(state_of({"state": left})) for left in all_left(path, path.stem)])
            forget_all(path)

    def summary(self, pieces: Sequence[Piece], progress: Progress = lambda what, done, total: None) -> Summary:
        """What some pieces say. Raises DataError, also where the normalizer cannot learn of summaries."""
        made = build_normalization(self.normalizer, self.source.metadata)
        if not made.merges:
            raise DataError(
                f"normalizer.type = '{self.normalizer.name}' has to see all data in one place: leave out --shard and "
                "--dask (its plugin has no 'summary' and 'fit_summaries')"
            )
        return made.summary(_Pieces(self, progress, pieces))

    def read(self) -> Normalization:
        """The normalization, with what was learnt. Raises DataError if that is not there."""
        path = self._found(self._identity())
        if path is None:
            raise DataError(
                f"{self.source.title}: normalizer.type = '{self.normalizer.name}', but the statistics of these data "
                "are not known yet; 'opframe run' computes them"
            )
        made = build_normalization(self.normalizer, self.source.metadata)
        try:
            made.load_state_dict(tensors(state_of(json.loads(path.read_text(encoding="utf-8")))))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: cannot be read ({error}); delete it, and 'opframe run' makes it anew") from error
        return made

    def _learnt(self, progress: Progress, summaries: Callable[[], Iterable[Summary]] | None = None) -> dict[str, Any]:
        made = build_normalization(self.normalizer, self.source.metadata)
        try:
            if summaries is None:
                made.fit(_Pieces(self, progress, self.pieces()))
            else:
                made.fit_summaries(summaries())
            return _plain(made.state_dict())
        except (DataError, ValueError) as error:  # ValueError: of what cannot be kept
            title, said = self.source.title, str(error)
            raise DataError(said if said.startswith(title) else f"{title}: {said}") from error

    def pieces(self) -> list[Piece]:
        """Trajectory, first and last frame of pieces that are small enough to be held in memory."""
        metadata = self.source.metadata
        step = max(1, _BLOCK // (4 * len(metadata.channels) * math.prod(metadata.grid)))
        lengths = [min(self.frames, metadata.length(number)) for number in range(metadata.trajectories)]
        return [
            (trajectory, start, min(start + step, length))
            for trajectory, length in enumerate(lengths)
            for start in range(0, length, step)
        ]

    def _found(self, identity: Mapping[str, Any]) -> Path | None:
        """The file that has it.

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
        """All that it depends on: settings, what the data say of themselves, which frames, files, the normalizer."""
        known, metadata = self.component.identity(stamps), self.source.metadata
        normalizer = to_tables(self.normalizer)
        held_out = list(self.source.held_out)
        return {
            "settings": known.settings,
            "metadata": {name: value for name, value in facts(metadata).items() if name != "parameters"},
            "frames": self.frames,
            "files": known.files,
            **({} if normalizer == _FIRST else {"normalizer": normalizer}),
            **({"held_out": held_out} if held_out else {}),
        }


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Raises DataError where the file, or the folder that it is in, cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}); set data.cache to a folder with room") from error


def _plain(learnt: Mapping[str, Tensor]) -> dict[str, Any]:
    """Small arrays as files hold them."""
    return {name: attrs.asdict(array) for name, array in arrays(learnt).items()}


def state_of(record: Mapping[str, Any]) -> dict[str, Array]:
    """What was learnt, from a file of statistics. Raises KeyError or TypeError where it is of another form."""
    if "state" not in record:  # once, all were of mean and deviation
        return {name: Array(values=tuple(record[name])) for name in ("mean", "deviation")}
    return {
        name: Array(
            values=tuple(array["values"]),
            shape=None if array["shape"] is None else tuple(array["shape"]),
            dtype=array["dtype"],
        )
        for name, array in record["state"].items()
    }


@frozen
class _Pieces:
    """The frames that are learnt of, (T, C, *native grid) at a time with NaN where a value is missing."""

    statistics: Statistics
    progress: Progress
    pieces: Sequence[Piece]

    def __iter__(self) -> Iterator[Tensor]:
        source, pieces = self.statistics.source, self.pieces
        for done, (trajectory, start, stop) in enumerate(pieces, start=1):
            frames = _read(source, trajectory, start, stop)
            # torch wants memory that may be written to; its order stays, as sums are rounded by it
            yield torch.from_numpy(frames if frames.flags.writeable else frames.copy(order="K"))
            self.progress(f"{source.title} (statistics)", done, len(pieces))


def _read(source: Source, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
    """Frames [start, stop) with NaN where a value is missing. Raises DataError where another one is not finite."""
    frames, missing = read_finite(source, trajectory, start, stop), source.metadata.missing
    return frames if missing is None else np.where(is_there(frames, missing), frames, np.float32(np.nan))


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
