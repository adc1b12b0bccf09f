"""The figures that a person wants to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from attrs import frozen
from matplotlib.figure import Figure
from numpy.typing import NDArray

from opframe.evaluation.protocol import Report
from opframe.files.atomic import appearing


@frozen(kw_only=True)
class Panels:
    """One channel along one roll-out: `truth` and `prediction` (T, X, Y), `frames` their frame numbers."""

    title: str
    channel: str
    truth: NDArray[np.float32]
    prediction: NDArray[np.float32]
    frames: tuple[int, ...]
    time_step: float | None


def file_name(title: str) -> str:
    """A dataset's title as part of a file name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in title)


def draw_rollout(panels: Panels, path: Path) -> None:
    """Truth, prediction and error at a few times, each row on one colour scale."""
    count = len(panels.frames)
    figure = Figure(figsize=(2.1 * count + 1.2, 6.6), layout="constrained")
    axes = figure.subplots(3, count, squeeze=False)
    low, high = float(panels.truth.min()), float(panels.truth.max())
    error = panels.prediction - panels.truth
    largest = float(np.abs(error).max()) or 1.0
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
        relative = np.linalg.norm(error[column]) / max(float(np.linalg.norm(panels.truth[column])), 1e-8)
        axes[0, column].set_title(when, fontsize=9)
        axes[2, column].set_title(f"L2RE {relative:.3f}", fontsize=9)
    figure.suptitle(f"{panels.title}: {panels.channel}")
    save(figure, path)


def draw_errors(report: Report, path: Path) -> None:
    """Error against time along the roll-out, one panel for each dataset, beside the baselines."""
    count = len(report.datasets)
    columns = min(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.6 * columns, 3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat[count:]:
        panel.set_visible(False)
    for panel, item in zip(axes.flat, report.datasets, strict=False):
        for name, score in item.scores.items():
            times = np.arange(1, len(score.frames) + 1) * (item.time_step or 1)
            panel.semilogy(times, np.maximum(score.frames, 1e-12), label=name)
        top = 2 * max(max(item.scores[name].frames) for name in ("model", "persistence"))
        panel.set_ylim(top=max(top, 1e-6))
        panel.set_title(item.title + (" (zero-shot)" if item.zero_shot else ""), fontsize=10)
        panel.set_xlabel("time after the last known frame" if item.time_step else "frames predicted")
        panel.grid(visible=True, alpha=0.3)
    axes[0, 0].set_ylabel("L2RE of one frame")
    axes[0, 0].legend()
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with appearing(path) as partial:
        figure.savefig(partial, dpi=110, format=path.suffix[1:])
