"""One CSV file of a run's numbers, for opframe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

from attrs import Attribute, field, frozen

from opframe_registry import Component, Logger, RunInfo, RunLogger, hookimpl


@final
@frozen(kw_only=True)
class CSV(Logger):
    """A CSV file in the run folder with the columns step, kind, name and value; one row for each number."""

    name: ClassVar[str] = "csv"
    file: str = field(default="metrics.csv", metadata={"help": "name of the file in the run folder"})

    @file.validator
    def _is_a_name(self, attribute: Attribute[str], value: str) -> None:
        if not value or value.startswith(".") or "/" in value or "\\" in value:
            raise ValueError(f"file = '{value}' is no name of a file in the run folder, such as 'metrics.csv'")

    def build(self, run: RunInfo) -> RunLogger:
        """Begin the file, or go on with what it has up to the step of the run. Raises RunError."""
        from opframe_csv.file import CSVFile

        return CSVFile(run.folder / self.file, run.step)


@hookimpl
def opframe_components() -> Sequence[type[Component]]:
    return [CSV]
