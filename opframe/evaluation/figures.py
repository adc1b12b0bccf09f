"""The figures that a person wants to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path

import numpy as np
from attrs import frozen
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from opframe.evaluation.scores import MODEL, ONE_STEP, Measure, Report
from opframe.files.atomic import appearing

SHOWN = {ONE_STEP: "L2RE"}
"""What measures are called in figures, where it is not by their names."""


@frozen(kw_only=True)
class Panels:
    """One channel along one roll-out: `truth` and `prediction` (T, X, Y), `frames` their frame numbers.

    `values` are those of `measure` in these frames, of all channels; there may be none. NaN stands where there is no
    value.
    """

    title: str
    channel: str
    truth: NDArray[np.float32]
    prediction: NDArray[np.float32]
    frames: tuple[int, ...]
    time_step: float | None
    measure: str = ""
    values: tuple[float, ...] = ()


def file_name(title: str) -> str:
    """A dataset's title as part of a file name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in title)


def draw_rollout(panels: Panels, path: Path) -> None:
    """Truth, prediction and error at a few times, each row on one colour scale."""
    count = len(panels.frames)
    figure = Figure(figsize=(2.1 * count + 1.2, 6.6), layout="constrained")
    axes = figure.subplots(3, count, squeeze=False)
    error = panels.prediction - panels.truth
    low, high = _least_and_largest(panels.truth)
    largest = max(map(abs, _least_and_largest(error))) or 1.0
    rows = [
        ("truth", panels.truth, "viridis", low, high),
        ("prediction", panels.prediction, "viridis", low, high),
        ("error", error, "RdBu_r", -largest, largest),
    ]
    for row, (name, values, colours, bottom, top) in enumerate(rows):
        for column in range(count):
            image = axes[row, column].imshow(values[column].T, origin="lower", cmap=colours, vmin=bottom, vmax=top)
            axes[row, column].set(xticks=[], yticks=[])
        axes[row, 0].set_ylabel(name)
        figure.colorbar(image, ax=axes[row, :], shrink=0.85, pad=0.01)
    for column, frame in enumerate(panels.frames):
        when = f"frame {frame}" if panels.time_step is None else f"t = {frame * panels.time_step:.3g} later"
        axes[0, column].set_title(when, fontsize=9)
        if panels.values:
            axes[2, column].set_title(f"{panels.measure} {panels.values[column]:.3g}", fontsize=9)
    figure.suptitle(f"{panels.title}: {panels.channel}")
    save(figure, path)


def _least_and_largest(values: NDArray[np.float32]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def draw_errors(report: Report, path: Path) -> None:
    """The first measure that is one of frames against time, one panel for each dataset, beside the baselines.

    Nothing, where no metric has such a measure.
    """
    measure = next((measure for measure in report.measures if measure.per_frame), None)
    if measure is None:
        return
    count = len(report.datasets)
    columns = min(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.6 * columns, 3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat[count:]:
        panel.set_visible(False)
    for panel, item in zip(axes.flat, report.datasets, strict=False):
        curves = {name: values[measure.name].frames or () for name, values in item.values.items()}
        _draw_curves(panel, curves, item.time_step or 1, measure, (MODEL, *report.baselines)[:2])
        panel.set_title(item.title + (" (zero-shot)" if item.zero_shot else ""), fontsize=10)
        panel.set_xlabel("time after the last known frame" if item.time_step else "frames predicted")
        panel.grid(visible=True, alpha=0.3)
    axes[0, 0].set_ylabel(f"{SHOWN.get(measure.name, measure.name)} of one frame")
    axes[0, 0].legend()
    save(figure, path)


def _draw_curves(
    panel: Axes, curves: Mapping[str, Sequence[float]], step: float, measure: Measure, leading: Sequence[str]
) -> None:
    """Curves against time; those of errors on a logarithmic scale that is made for the `leading` ones."""
    for name, curve in curves.items():
        times = np.arange(1, len(curve) + 1) * step
        if measure.better == "higher":
            panel.plot(times, curve, label=name)
        else:
            panel.semilogy(times, np.maximum(curve, 1e-12), label=name)
    seen = [value for name in leading for value in curves[name] if isfinite(value)]
    if measure.better == "lower" and seen:
        panel.set_ylim(top=max(2 * max(seen), 1e-6))


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with appearing(path) as partial:
        figure.savefig(partial, dpi=110, format=path.suffix[1:])
