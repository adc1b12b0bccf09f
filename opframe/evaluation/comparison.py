"""Several finished runs beside each other: a table, and a figure against a key of their configs."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

from attrs import frozen
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from opframe.console import tables_that_fit
from opframe.evaluation.figures import save
from opframe.evaluation.scores import ONE_STEP, ROLL_OUT
from opframe.files.atomic import write_atomically
from opframe.tables import markdown_table
from opframe_registry import RunError

_WORDS = {"step": "L2RE, one step", "full": "L2RE, roll-out"}
_KEY = re.compile(r"[^.\[\]]+")


@frozen(kw_only=True)
class Finished:
    """A run folder with its report: settings as tables, and the means of each dataset by forecast and measure.

    The published error has the measures `step` and `full`, what else is measured its own names.
    """

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
        scores = {item["title"]: _means(item) for item in report["datasets"]}
    except FileNotFoundError as error:
        raise RunError(f"{path} is not a finished run: there is no {error.filename}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: the config or the report cannot be read ({error})") from error
    return Finished(path=path, config=config, scores=scores)


def _means(item: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The means of a dataset, also from a report that was written when there was the published error alone."""
    found: dict[str, dict[str, float]] = {}
    for forecast, score in item["scores"].items():
        found[forecast] = {name: float(score[name]) for name in _WORDS}
    for forecast, values in item.get("values", {}).items():
        others = {name: float(value["mean"]) for name, value in values.items() if name not in (ONE_STEP, ROLL_OUT)}
        found[forecast] = {**found.get(forecast, {}), **others}
    return found


def measures(runs: Sequence[Finished]) -> dict[str, str]:
    """Everything that some run has measured, with what it is called."""
    every = [values for run in runs for forecasts in run.scores.values() for values in forecasts.values()]
    return {name: _WORDS.get(name, name) for name in dict.fromkeys(name for values in every for name in values)}


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
    if len(still) == 1 and set(*still) != {"-"}:
        table.append(["persistence", *([""] if by else []), *still.pop()])
    return table


def _errors(run: Finished, datasets: Iterable[str], forecast: str, measure: str) -> list[str]:
    found = [run.scores.get(name, {}).get(forecast, {}).get(measure) for name in datasets]
    return [
        "-" if value is None or isnan(value) else f"{value:.4f}" if measure in _WORDS else f"{value:.4g}"
        for value in found
    ]


def make_tables(runs: Sequence[Finished], by: str | None, console: Console) -> list[Table]:
    """For the console, a row for each dataset: for each measure one table, or more where it is too narrow for one."""
    tables = []
    for measure, words in measures(runs).items():
        head, *others = zip(*rows(runs, measure, by), strict=True)
        tables += tables_that_fit(console, words, ["dataset", *head[1:]], others)
    return tables


def markdown(runs: Sequence[Finished], by: str | None) -> str:
    """A table for each measure."""
    lines = []
    for measure, words in measures(runs).items():
        head, *others = rows(runs, measure, by)
        lines += [f"## {words}", "", *markdown_table(head, "l" + "r" * (len(head) - 1), others), ""]
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
    """Roll-out error, or else what all runs have measured, against a key: a panel for each dataset, a line for each
    title. Raises RunError where the key is no number, or the runs have measured nothing in common.
    """
    for run in runs:
        if not isinstance(run.value(key), int | float):
            raise RunError(f"{run.path / 'config.toml'}: {key} = {run.value(key)!r} is not a number to draw against")
    measure = _common(runs)
    datasets = list(dict.fromkeys(name for run in runs for name in run.scores))
    figure = Figure(figsize=(4.2 * len(datasets), 3.4), layout="constrained")
    axes = figure.subplots(1, len(datasets), squeeze=False)[0]
    for panel, dataset in zip(axes, datasets, strict=True):
        mine = sorted((run for run in runs if dataset in run.scores), key=lambda run: float(run.value(key)))
        for title in dict.fromkeys(run.title for run in mine):
            line = [(run.value(key), run.scores[dataset]["model"][measure]) for run in mine if run.title == title]
            panel.semilogx(*zip(*line, strict=True), "o-", label=title)
        still = {run.scores[dataset].get("persistence", {}).get(measure) for run in mine}
        if len(still) == 1 and still != {None}:
            panel.axhline(still.pop(), color="grey", linestyle=":", label="persistence")
        values = sorted({run.value(key) for run in mine})
        panel.set_xticks(values, labels=[str(value) for value in values])
        panel.minorticks_off()
        panel.set_ylim(bottom=0)
        panel.set(title=dataset, xlabel=key, ylabel="L2RE of the roll-out" if measure == "full" else measure)
    axes[0].legend(fontsize=8)
    save(figure, path)


def _common(runs: Sequence[Finished]) -> str:
    """The roll-out error, or else the first measure, of those that all runs have. Raises RunError if there is none."""
    every = [forecasts["model"] for run in runs for forecasts in run.scores.values()]
    common = [name for name in ("full", *measures(runs)) if all(name in values for values in every)]
    if not common:
        raise RunError("there is nothing to draw: these runs have measured nothing in common")
    return common[0]
