"""The table at the end of a run, and report.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from math import isnan
from pathlib import Path

import attrs
import numpy as np
import torch
from cattrs import Converter
from cattrs.errors import BaseValidationError
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import nn

from opframe.console import tables_that_fit
from opframe.evaluation.figures import SHOWN, Panels, draw_errors, draw_rollout, file_name
from opframe.evaluation.measuring import measured
from opframe.evaluation.protocol import Evaluator
from opframe.evaluation.scores import MODEL, ONE_STEP, ROLL_OUT, DatasetReport, Measure, Report
from opframe.files.atomic import write_atomically
from opframe.mixture.overlap import Overlap, advice
from opframe.mixture.rollout import model_forecast
from opframe.mixture.source import Source
from opframe.tables import markdown_table
from opframe_registry import RunError

_COLUMNS = 5  # times shown of a roll-out
_NARROW = 9  # letters of a forecast's name in a table of the console
_WORDS = {ONE_STEP: "one step", ROLL_OUT: "roll-out"}
_COUNTS = {1: "", 2: ", in both measures"}
_L2RE = (
    "One step: mean of the one-frame errors along the roll-out. Roll-out: error over all predicted frames "
    "together. Errors are relative L2 norms per channel, averaged over channels, then trajectories."
)


def make_tables(report: Report, console: Console) -> list[Table]:
    """For each metric its measures of the model and the baselines, a row for each dataset, as wide as the console."""
    tables = []
    for measures in report.by_metric():
        head = ["\ndataset", *(f"{_words(each)}\n{_narrow(name)}" for each in measures for name in report.forecasts)]
        rows: list[list[str]] = []
        for zero_shot, items in groupby(report.datasets, lambda item: item.zero_shot):
            rows += [["zero-shot:"]] if zero_shot else []
            rows += [[item.title, *_numbers(report, item, measures)] for item in items]  # no room for more
        tables += tables_that_fit(console, _heading(report, measures), head, rows)
    return tables


def _narrow(name: str) -> str:
    return name if len(name) <= _NARROW else f"{name[: _NARROW - 2]}."


def _words(measure: Measure) -> str:
    return _WORDS.get(measure.name, measure.name)


def _heading(report: Report, measures: Sequence[Measure]) -> str:
    name = "L2RE" if ROLL_OUT in [each.name for each in measures] else measures[0].metric
    return f"{name} on {report.split} trajectories"


def _numbers(report: Report, item: DatasetReport, measures: Sequence[Measure]) -> list[str]:
    return [
        _number(item.values[name][each.name].mean, each) if each.name in item.values[name] else "-"
        for each in measures
        for name in report.forecasts
    ]


def _number(value: float, measure: Measure) -> str:
    """Four digits, of a relative error after the point."""
    if isnan(value):  # there was nothing to measure
        return "-"
    return f"{value:.4f}" if measure.name in _WORDS else f"{value:.4g}"


def measured_on(report: Report, validation: Report | None) -> list[str]:
    """How many trajectories the numbers are of, and what the validation data say of the same weights."""
    lines = [f"Test trajectories: {_counts(report)}.", *_intervals(report)]
    if validation is not None:
        name = _words(validation.leading())
        error = f"the mean over datasets of '{name}' is {validation.mean():.4f}"
        lines.append(f"Validation trajectories: {_counts(validation)}; {error}.")
    return lines


def _intervals(report: Report) -> list[str]:
    """Between what the leading measure of the model lies, as far as the choice of trajectories goes."""
    leading = report.leading()
    found = [(item.title, item.values[MODEL][leading.name].interval()) for item in report.datasets]
    said = [f"{title} {_number(known[0], leading)} to {_number(known[1], leading)}" for title, known in found if known]
    name = _words(leading)
    return [f"95 % intervals of '{name}' (bootstrap over trajectories): {', '.join(said)}."] if said else []


def _counts(report: Report) -> str:
    return ", ".join(f"{item.title} {item.trajectories}" for item in report.datasets)


def verdict(report: Report) -> list[str]:
    """Whether the model beats the first baseline everywhere, and what its classification head recognises, in words."""
    lines = _against(report, next(iter(report.baselines))) if report.baselines else []
    known = [f"{item.title} {item.recognised:.0%}" for item in report.datasets if item.recognised is not None]
    if known:
        lines.append(f"Trajectories that the classification head assigns to their dataset: {', '.join(known)}.")
    return [*lines, *(remark for item in report.datasets for remark in item.remarks)]


def _against(report: Report, baseline: str) -> list[str]:
    """How the model stands to a baseline, by the measures of the first metric."""
    measures = report.by_metric()[0]
    lost = [item.title for item in report.datasets if not item.beats(baseline, measures)]
    counts = _COUNTS.get(len(measures), f", in all {len(measures)} measures")
    lines = [f"The model beats {baseline} on every dataset{counts}."]
    if lost:
        lines = [f"The model does NOT beat {baseline} on {', '.join(lost)}."]
    behind = [item.title for item in report.datasets if _behind_at_first(item, baseline, measures)]
    if behind:
        lines.append(f"In the first frame alone, {baseline} is better on {', '.join(behind)}.")
    return lines


def _behind_at_first(item: DatasetReport, baseline: str, measures: Sequence[Measure]) -> bool:
    each = next((measure for measure in measures if measure.per_frame), None)
    if each is None:
        return False
    model, other = item.values[MODEL][each.name].frames, item.values[baseline][each.name].frames
    return model is not None and other is not None and each.improves(other[0], model[0])


def write_report(
    folder: Path,
    title: str,
    report: Report,
    facts: Sequence[str],
    overlaps: Sequence[Overlap] = (),
    validation: Report | None = None,
) -> None:
    """`report.md` and `report.json`: what was run, what of it was tested, the table, what it means, and the figures.

    `validation` has the values of the same weights on validation trajectories, where there are any.
    """
    lines = [f"# {title}", "", *(f"- {fact}" for fact in facts), ""]
    lines += [f"- **{found.words}**" if found.same else f"- {found.words}" for found in overlaps]
    lines += [*(f"- {line}" for line in advice(overlaps)), *([""] if overlaps else [])]
    first, *others = report.by_metric()
    lines += [*_section(report, first), "", *measured_on(report, validation), "", *verdict(report), ""]
    lines += [_explained(report, first), ""]
    for measures in others:
        lines += [*_section(report, measures), "", _explained(report, measures), ""]
    if validation is not None:
        for measures in validation.by_metric():
            lines += [*_section(validation, measures), ""]
    if (folder / "figures").exists():
        lines += ["## Figures", ""]
        lines += [f"![{path.stem}](figures/{path.name})" for path in sorted((folder / "figures").glob("*.png"))]
    write_atomically(folder / "report.md", "\n".join(lines) + "\n")
    record = {
        **report.record(),
        "validation": validation.record()["datasets"] if validation else [],
        "overlaps": [attrs.asdict(found) for found in overlaps],
    }
    write_atomically(folder / "report.json", json.dumps(record, indent=1))


def read_report(folder: Path) -> Report:
    """The report of a run folder. Raises RunError where it cannot be read, or an older opframe has written it."""
    path = folder / "report.json"
    try:
        return Converter().structure(json.loads(path.read_text(encoding="utf-8")), Report)
    except (OSError, ValueError, TypeError, BaseValidationError) as error:
        raise RunError(f"{path}: cannot be read as a report ({error})") from error


def _section(report: Report, measures: Sequence[Measure]) -> list[str]:
    """The table of a metric in Markdown, under its heading."""
    head = ["dataset", "trajectories", "frames"]
    head += [f"{_words(each)}, {name}" for each in measures for name in report.forecasts]
    rows = [
        [
            item.title + " (zero-shot)" * item.zero_shot,
            str(item.trajectories),
            str(item.rollout),
            *_numbers(report, item, measures),
        ]
        for item in report.datasets
    ]
    return [f"## {_heading(report, measures)}", "", *markdown_table(head, "lll" + "r" * (len(head) - 3), rows)]


def _explained(report: Report, measures: Sequence[Measure]) -> str:
    """What the measures of a metric are, and under the first table also what the baselines are."""
    words = [_L2RE if _WORDS.keys() <= {each.name for each in measures} else measures[0].help]
    if measures == report.by_metric()[0]:
        words += [f"{name}: {about}" for name, about in report.baselines.items()]
    return " ".join(words)


def draw_all(folder: Path, evaluator: Evaluator, backbone: nn.Module, report: Report) -> None:
    """One roll-out of each dataset, and error against time, into `figures/`."""
    for source in (*evaluator.sources, *evaluator.zero_shot):
        panels = panels_of(evaluator, source, backbone)
        draw_rollout(panels, folder / "figures" / f"rollout_{file_name(source.title)}.png")
    draw_errors(report, folder / "figures" / "error_against_time.png")


def panels_of(evaluator: Evaluator, source: Source, backbone: nn.Module) -> Panels:
    """The first predicted channel of the longest trajectory that is evaluated; NaN where there is no value."""
    backbone.eval()
    examples = evaluator.read(source, [evaluator.trajectories(source)[-1]])
    missing = source.metadata.missing is not None
    prediction = evaluator.predict(source, model_forecast(backbone, evaluator.fields.horizon, missing), examples)
    truth, counted = source.physical(examples.future), examples.counted(evaluator.mask(source))
    values = measured(evaluator.metrics, prediction, truth, counted, source.metadata)
    shown = np.unique(np.linspace(0, examples.frames - 1, _COLUMNS).astype(int))
    curve = next((each for each in values if each.per_frame), None)
    channel = source.metadata.channels.index(source.metadata.predicted[0])
    known = None if examples.known is None else examples.known[:, :, channel]
    pick = [
        frames[:, :, channel] if known is None else frames[:, :, channel].where(known, torch.nan)
        for frames in (truth, prediction)
    ]
    planes = [_plane(frames[0, shown].float().cpu().numpy()) for frames in pick]
    return Panels(
        title=source.title,
        channel=source.metadata.predicted[0],
        truth=planes[0],
        prediction=planes[1],
        frames=tuple(int(frame) + 1 for frame in shown),
        time_step=source.metadata.time_step,
        measure="" if curve is None else SHOWN.get(curve.name, curve.name),
        values=() if curve is None else tuple(values[curve][0, shown].tolist()),
    )


def _plane(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Frames (T, *grid) as (T, X, Y): a 1-D grid as one row, the first layer of a 3-D one."""
    return frames[..., None] if frames.ndim == 2 else frames.reshape(*frames.shape[:3], -1)[..., 0]
