"""Where a copy of a run is: files at a path or URL that fsspec can write to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define

from opframe.files.location import require_filesystem
from opframe.files.retries import redacted
from opframe.files.transport import open_filesystem
from opframe.weights.checkpoints import checkpoint_path, read_record, step_of
from opframe_registry import DataError, RunError

MARK = "mark.json"


@define
class Place:
    """Where the copy is: a folder with files, of which a checkpoint's mark is written last and removed first."""

    url: str

    def steps(self) -> list[int]:
        """Those of the complete checkpoints, ascending. Raises RunError."""
        return self._found(f"step-*/{MARK}")

    def begun(self) -> list[int]:
        """Those of all checkpoints, also of what was never completed. Raises RunError."""
        return self._found("step-*/*")

    def sizes(self, name: str) -> dict[str, int]:
        """The bytes of the files in a folder. Raises RunError."""
        with self._said("read") as (filesystem, root):
            found = filesystem.ls(f"{root}/{name}", detail=True)
            return {Path(each["name"]).name: int(each["size"] or 0) for each in found}

    def get(self, names: Sequence[str], folder: Path) -> None:
        """Bring those of some files that there are into a folder. Raises RunError."""
        with self._said("read") as (filesystem, root):
            for name in names:
                if filesystem.exists(f"{root}/{name}"):
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    filesystem.get_file(f"{root}/{name}", str(folder / name))

    def get_checkpoint(self, step: int, folder: Path) -> Path:
        """Bring a checkpoint into a folder of checkpoints, under another name, which it returns. Raises RunError."""
        final = checkpoint_path(folder, step)
        partial = final.with_name(f"{final.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with self._said("read") as (filesystem, root):
            for path in filesystem.ls(f"{root}/checkpoints/{final.name}", detail=False):
                filesystem.get_file(path, str(partial / Path(path).name))
        return partial

    def put(self, files: Sequence[Path], below: str = "") -> None:
        """Write files; each is the old one or the new one. Raises RunError."""
        with self._said("written") as (filesystem, root):
            filesystem.makedirs(f"{root}/{below}".rstrip("/"), exist_ok=True)
            for path in files:
                filesystem.put_file(str(path), f"{root}/{below}{path.name}")

    def put_checkpoint(self, path: Path) -> None:
        """Write a checkpoint; it counts once its mark is there. Raises RunError."""
        below = f"checkpoints/{path.name}/"
        self.put([path / name for name in read_record(path).files], below)
        self.put([path / MARK], below)

    def remove(self, step: int) -> None:
        """Remove a checkpoint. Raises RunError."""
        with self._said("written") as (filesystem, root):
            path = f"{root}/checkpoints/{checkpoint_path(Path(), step).name}"
            if filesystem.exists(f"{path}/{MARK}"):
                filesystem.rm_file(f"{path}/{MARK}")
            filesystem.rm(path, recursive=True)

    def _found(self, pattern: str) -> list[int]:
        with self._said("read") as (filesystem, root):
            filesystem.invalidate_cache()
            found = filesystem.glob(f"{root}/checkpoints/{pattern}")
            return sorted({step for path in found if (step := step_of(Path(path).parent.name)) is not None})

    @contextmanager
    def _said(self, what: str) -> Iterator[tuple[Any, str]]:
        try:
            require_filesystem(self.url)
            filesystem, root = open_filesystem(self.url)
            yield filesystem, root.rstrip("/")
        except DataError as error:
            raise RunError(f"run.copy: {error}") from error
        except Exception as error:  # every filesystem has errors of its own
            words = f"{type(error).__name__}: {error}".rstrip(": ")
            raise RunError(f"run.copy: {redacted(self.url)}: cannot be {what} ({words})") from error
