"""Several finished runs beside each other: a table, and a figure against a key of their configs."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from opframe.console import tables_that_fit
from opframe.evaluation.figures import save
from opframe.files.atomic import write_atomically
from opframe.tables import markdown_table
from opframe_registry import RunError

_MEASURES = {"step": "one step", "full": "roll-out"}
_KEY = re.compile(r"[^.\[\]]+")


@frozen(kw_only=True)
class Finished:
    """A run folder with its report: settings as tables, and the scores of each dataset by name of the forecast."""

    path: Path
    config: dict[str, Any]
    scores: dict[str, dict[str, dict[str, float]]]

    @property
    def title(self) -> str:
        """The experiment's title, or the folder's name."""
        return str(self.config.get("title") or self.path.name)

    def value(self, key: str) -> Any:
        """The value of a key such as `datasets.0.train`. Raises RunError where the config does not have it."""
        node: Any = self.config
        for step in _KEY.findall(key):
            try:
                node = node[int(step)] if isinstance(node, list) else node[step]
            except (KeyError, IndexError, ValueError, TypeError):
                raise RunError(f"{self.path / 'config.toml'}: there is no key '{key}'") from None
        return node


def read_finished(path: Path) -> Finished:
    """Read a finished run. Raises RunError naming what is missing."""
    try:
        config = tomllib.loads((path / "config.toml").read_text(encoding="utf-8"))
        report = json.loads((path / "report.json").read_text(encoding="utf-8"))
        scores = {item["title"]: item["scores"] for item in report["datasets"]}
    except FileNotFoundError as error:
        raise RunError(f"{path} is not a finished run: there is no {error.filename}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: the config or the report cannot be read ({error})") from error
    return Finished(path=path, config=config, scores=scores)


def rows(runs: Sequence[Finished], measure: str, by: str | None) -> list[list[str]]:
    """A head, a row for each run, and one for persistence where all runs agree on it."""
    datasets = list(dict.fromkeys(name for run in runs for name in run.scores))
    head = ["run", *([by] if by else []), *datasets]
    table = [head]
    table += [
        [run.path.name, *([str(run.value(by))] if by else []), *_errors(run, datasets, "model", measure)]
        for run in runs
    ]
    still = {tuple(_errors(run, datasets, "persistence", measure)) for run in runs}
    if len(still) == 1:
        table.append(["persistence", *([""] if by else []), *still.pop()])
    return table


def _errors(run: Finished, datasets: Iterable[str], forecast: str, measure: str) -> list[str]:
    return [f"{run.scores[name][forecast][measure]:.4f}" if name in run.scores else "-" for name in datasets]


def make_tables(runs: Sequence[Finished], by: str | None, console: Console) -> list[Table]:
    """For the console, a row for each dataset: for each measure one table, or more where it is too narrow for one."""
    tables = []
    for measure, words in _MEASURES.items():
        head, *others = zip(*rows(runs, measure, by), strict=True)
        tables += tables_that_fit(console, f"L2RE, {words}", ["dataset", *head[1:]], others)
    return tables


def markdown(runs: Sequence[Finished], by: str | None) -> str:
    """A table for each measure."""
    lines = []
    for measure, words in _MEASURES.items():
        head, *others = rows(runs, measure, by)
        lines += [f"## L2RE, {words}", "", *markdown_table(head, "l" + "r" * (len(head) - 1), others), ""]
    return "\n".join(lines)


def write_comparison(runs: Sequence[Finished], by: str | None, folder: Path) -> None:
    """`comparison.md`, and with `by` the figure `comparison.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [markdown(runs, by)]
    if by:
        draw_against(runs, by, folder / "comparison.png")
        lines += ["![comparison](comparison.png)", ""]
    write_atomically(folder / "comparison.md", "\n".join(lines))


def draw_against(runs: Sequence[Finished], key: str, path: Path) -> None:
    """Roll-out error against a key, a panel for each dataset, a line for each title."""
    for run in runs:
        if not isinstance(run.value(key), int | float):
            raise RunError(f"{run.path / 'config.toml'}: {key} = {run.value(key)!r} is not a number to draw against")
    datasets = list(dict.fromkeys(name for run in runs for name in run.scores))
    figure = Figure(figsize=(4.2 * len(datasets), 3.4), layout="constrained")
    axes = figure.subplots(1, len(datasets), squeeze=False)[0]
    for panel, dataset in zip(axes, datasets, strict=True):
        mine = sorted((run for run in runs if dataset in run.scores), key=lambda run: float(run.value(key)))
        for title in dict.fromkeys(run.title for run in mine):
            line = [(run.value(key), run.scores[dataset]["model"]["full"]) for run in mine if run.title == title]
            panel.semilogx(*zip(*line, strict=True), "o-", label=title)
        still = {run.scores[dataset]["persistence"]["full"] for run in mine}
        if len(still) == 1:
            panel.axhline(still.pop(), color="grey", linestyle=":", label="persistence")
        values = sorted({run.value(key) for run in mine})
        panel.set_xticks(values, labels=[str(value) for value in values])
        panel.minorticks_off()
        panel.set_ylim(bottom=0)
        panel.set(title=dataset, xlabel=key, ylabel="L2RE of the roll-out")
    axes[0].legend(fontsize=8)
    save(figure, path)
