"""Work that several machines share, each doing one part and leaving a file; another puts the files together."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from attrs import frozen

from opframe.files.atomic import write_atomically
from opframe_registry import DataError

T = TypeVar("T")


@frozen
class Shard:
    """One of several parts, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def read(cls, text: str) -> Shard:
        """From words such as 3/16. Raises ValueError."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"{text} is not a part of a number of parts, such as 3/16")
        return cls(int(found[1]), int(found[2]))

    def share(self, tasks: Sequence[T]) -> Sequence[T]:
        """A run of the tasks; the shares of all shards are all tasks, and differ by one at most."""
        return tasks[len(tasks) * (self.number - 1) // self.of : len(tasks) * self.number // self.of]

    def leave(self, beside: Path, of: str, found: Mapping[str, Any]) -> None:
        """Write what was found for the file `beside`. `of` tells what was looked at from anything else."""
        write_atomically(self._path(beside), json.dumps({"of": of, "found": found}))

    def left(self, beside: Path, of: str) -> dict[str, Any] | None:
        """What was found before, of the same. None: nothing. Raises DataError where it cannot be read."""
        path = self._path(beside)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return dict(record["found"]) if record["of"] == of else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: cannot be read ({error}); delete it and do shard {self} again") from error

    def forget(self, beside: Path) -> None:
        """Remove what was left."""
        self._path(beside).unlink(missing_ok=True)

    def _path(self, beside: Path) -> Path:
        return beside.with_name(f"{beside.name}.{self.number}-of-{self.of}")


def shards_beside(path: Path) -> list[Shard]:
    """All the shards of which some have left a file for `path`. Raises DataError where none has, or they are mixed."""
    pattern = re.compile(re.escape(path.name) + r"\.(\d+)-of-(\d+)")
    found = [match for each in path.parent.glob("*") if (match := pattern.fullmatch(each.name))]
    counts = sorted({int(match[2]) for match in found})
    if not counts:
        raise DataError(f"{path}: no shard has left anything for it; do --shard 1/N to N/N first, then --merge")
    if len(counts) > 1:
        names = " and ".join(f"{path.name}.*-of-{count}" for count in counts)
        raise DataError(f"{path.parent}: there are shards of several numbers of them; delete all but one of {names}")
    return [Shard(number, counts[0]) for number in range(1, counts[0] + 1)]


def all_left(path: Path, of: str) -> list[dict[str, Any]]:
    """What all shards have left for `path`, in their order. Raises DataError naming those that have not."""
    shards = shards_beside(path)
    found = {shard: shard.left(path, of) for shard in shards}
    if missing := [str(shard) for shard, left in found.items() if left is None]:
        one = len(missing) == 1
        raise DataError(
            f"{path}: shard{'' if one else 's'} {', '.join(missing)} {'is' if one else 'are'} missing, or of other "
            f"data or settings; do {'it' if one else 'them'}, then --merge again"
        )
    return [left for left in found.values() if left is not None]


def forget_all(path: Path) -> None:
    """Remove what shards have left for `path`."""
    for shard in shards_beside(path):
        shard.forget(path)
