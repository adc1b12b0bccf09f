"""The table at the end of a run, and report.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import nn

from opframe.console import tables_that_fit
from opframe.evaluation.figures import Panels, draw_errors, draw_rollout, file_name
from opframe.evaluation.protocol import DatasetReport, Evaluator, Report
from opframe.files.atomic import write_atomically
from opframe.mixture.overlap import Overlap, advice
from opframe.mixture.rollout import model_forecast
from opframe.mixture.source import Source
from opframe.tables import markdown_table

_FORECASTS = ("model", "persistence", "linear")
_MEASURES = ("one step", "roll-out")
_COLUMNS = 5  # times shown of a roll-out


def make_tables(report: Report, console: Console) -> list[Table]:
    """Both measures for the model and the two baselines, a row for each dataset, as wide as the console."""
    head = ["\ndataset", *(f"{measure}\n{name}" for measure in _MEASURES for name in ("model", "persist.", "linear"))]
    rows: list[list[str]] = []
    for zero_shot, items in groupby(report.datasets, lambda item: item.zero_shot):
        rows += [["zero-shot:"]] if zero_shot else []
        rows += [[item.title, *_numbers(item)] for item in items]  # no room for the number of frames
    return tables_that_fit(console, "L2RE on test trajectories", head, rows)


def _numbers(item: DatasetReport) -> list[str]:
    steps = [f"{item.scores[name].step:.4f}" for name in _FORECASTS]
    fulls = [f"{item.scores[name].full:.4f}" for name in _FORECASTS]
    return [*steps, *fulls]


def measured_on(report: Report, validation: Report | None) -> list[str]:
    """How many trajectories the numbers are of, and what the validation data say of the same weights."""
    lines = [f"Test trajectories: {_counts(report)}."]
    if validation is not None:
        error = f"mean error of the roll-out {validation.mean_error():.4f}"
        lines.append(f"Validation trajectories: {_counts(validation)}; {error}.")
    return lines


def _counts(report: Report) -> str:
    return ", ".join(f"{item.title} {item.trajectories}" for item in report.datasets)


def verdict(report: Report) -> list[str]:
    """Whether the model beats persistence everywhere, and what its classification head recognises, in words."""
    lost = [item.title for item in report.datasets if not item.beats_persistence()]
    lines = ["The model beats persistence on every dataset, in both measures."]
    if lost:
        lines = [f"The model does NOT beat persistence on {', '.join(lost)}."]
    behind = [item.title for item in report.datasets if item.scores["model"].first > item.scores["persistence"].first]
    if behind:
        lines.append(f"In the first frame alone, persistence is better on {', '.join(behind)}.")
    known = [f"{item.title} {item.recognised:.0%}" for item in report.datasets if item.recognised is not None]
    if known:
        lines.append(f"Trajectories that the classification head assigns to their dataset: {', '.join(known)}.")
    return [*lines, *(remark for item in report.datasets for remark in item.remarks)]


def write_report(
    folder: Path,
    title: str,
    report: Report,
    facts: Sequence[str],
    overlaps: Sequence[Overlap] = (),
    validation: Report | None = None,
) -> None:
    """`report.md` and `report.json`: what was run, what of it was tested, the table, what it means, and the figures.

    `validation` are the scores of the same weights on validation trajectories, where there are any.
    """
    lines = [f"# {title}", "", *(f"- {fact}" for fact in facts), ""]
    lines += [f"- **{found.words}**" if found.same else f"- {found.words}" for found in overlaps]
    lines += [*(f"- {line}" for line in advice(overlaps)), *([""] if overlaps else [])]
    lines += ["## L2RE on test trajectories", "", *_table(report)]
    lines += ["", *measured_on(report, validation), "", *verdict(report), ""]
    if validation is not None:
        lines += ["## L2RE on validation trajectories", "", *_table(validation), ""]
    lines += [
        "One step: mean of the one-frame errors along the roll-out. Roll-out: error over all predicted frames "
        "together. Errors are relative L2 norms per channel, averaged over channels, then trajectories. "
        "Persistence repeats the last known frame, linear continues the line through the last two.",
        "",
    ]
    if (folder / "figures").exists():
        lines += ["## Figures", ""]
        lines += [f"![{path.stem}](figures/{path.name})" for path in sorted((folder / "figures").glob("*.png"))]
    write_atomically(folder / "report.md", "\n".join(lines) + "\n")
    record = {
        **attrs.asdict(report),
        "split": "test",
        "validation": attrs.asdict(validation)["datasets"] if validation else [],
        "overlaps": [attrs.asdict(found) for found in overlaps],
    }
    write_atomically(folder / "report.json", json.dumps(record, indent=1))


def _table(report: Report) -> list[str]:
    head = ["dataset", "trajectories", "frames"]
    head += [f"{measure}, {name}" for measure in _MEASURES for name in _FORECASTS]
    rows = [
        [
            item.title + " (zero-shot)" * item.zero_shot,
            str(item.trajectories),
            str(len(item.scores["model"].frames)),
            *_numbers(item),
        ]
        for item in report.datasets
    ]
    return markdown_table(head, "lll" + "r" * 6, rows)


def draw_all(folder: Path, evaluator: Evaluator, backbone: nn.Module, report: Report) -> None:
    """One roll-out of each dataset, and error against time, into `figures/`."""
    for source in (*evaluator.sources, *evaluator.zero_shot):
        panels = panels_of(evaluator, source, backbone)
        draw_rollout(panels, folder / "figures" / f"rollout_{file_name(source.title)}.png")
    draw_errors(report, folder / "figures" / "error_against_time.png")


def panels_of(evaluator: Evaluator, source: Source, backbone: nn.Module) -> Panels:
    """The first predicted channel of the first held-out trajectory."""
    backbone.eval()
    history, future = evaluator.read(source, [0])
    forecast = model_forecast(backbone, evaluator.fields.horizon)
    prediction = source.physical(evaluator.run(forecast, history, source.rollout, evaluator.conditions(source, [0])))
    channel = source.metadata.channels.index(source.metadata.predicted[0])
    shown = np.unique(np.linspace(0, source.rollout - 1, _COLUMNS).astype(int))
    truth = source.physical(future)
    pick = [_plane(frames[0, shown, channel].float().cpu().numpy()) for frames in (truth, prediction)]
    return Panels(
        title=source.title,
        channel=source.metadata.predicted[0],
        truth=pick[0],
        prediction=pick[1],
        frames=tuple(int(frame) + 1 for frame in shown),
        time_step=source.metadata.time_step,
    )


def _plane(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Frames (T, *grid) as (T, X, Y): a 1-D grid as one row, the first layer of a 3-D one."""
    return frames[..., None] if frames.ndim == 2 else frames.reshape(*frames.shape[:3], -1)[..., 0]
