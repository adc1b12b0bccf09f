"""A CSV file that grows by rows, and that a resumed run goes on with."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opframe_registry import RunError

COLUMNS = ("step", "kind", "name", "value")


class CSVFile:
    """Rows are on disk when `log` returns."""

    def __init__(self, path: Path, step: int) -> None:
        """Drop what is beyond a step. Raises RunError where the file is another one, or cannot be written."""
        try:
            kept = kept_rows(path, step)
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = path.with_name(f".{path.name}.new")
            whole.write_text(as_text([COLUMNS, *kept]), encoding="utf-8", newline="")
            os.replace(whole, path)
            self._file = path.open("a", encoding="utf-8", newline="")
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error}") from error

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Append a row for each value."""
        self._file.write(as_text([(str(step), kind, name, repr(float(value))) for name, value in values.items()]))
        self._file.flush()

    def image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """A picture is no number; nothing is written."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def kept_rows(path: Path, step: int) -> list[list[str]]:
    """The rows of a file up to a step, without a last one that was cut off. Raises RunError for another file."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    heading, *rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1]))) or [list(COLUMNS)]
    if tuple(heading) != COLUMNS:
        raise RunError(f"{path}: its columns are {heading}, not {list(COLUMNS)}; it is another file: move it away")
    return [row for row in rows if int(row[0]) <= step]
