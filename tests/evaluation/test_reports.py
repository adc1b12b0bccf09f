"""Reports have a table of every metric, beside whatever baselines; runs are compared in all that they have measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data_support import Command, command  # noqa: F401
from opframe.evaluation.comparison import measures, read_finished, rows

MADE = Path(__file__).parents[1] / "made_before" / "runs" / "plain"
SETTINGS = (
    "evaluation.figures=true",
    "metrics=[{type='rmse'}, {type='relative_l2'}]",
    "trainer.evaluate_every=4",
    "data.validation=1",
)


def options(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def test_a_run_reports_what_its_config_asks_for(experiment: Path, command: Command) -> None:  # noqa: F811
    folder = experiment.parent / "run"
    done = command("run", experiment, *options(*SETTINGS, "evaluation.baselines=['linear']"))
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert said.index("rmse on test") < said.index("L2RE on test") < said.index("linear on")
    written = (folder / "report.md").read_text()
    first, second = written.split("## L2RE on test trajectories")
    assert "| dataset | trajectories | frames | rmse, model | rmse, linear |" in first
    assert "root mean square error" in first.lower()
    assert "linear: Continues the line through the last two frames." in first
    head = (
        "| dataset | trajectories | frames | one step, model | one step, linear | roll-out, model | roll-out, linear |"
    )
    assert head in second
    assert "persistence" not in written
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    for item in report["datasets"]:
        assert item["scores"].keys() == item["values"].keys() == {"model", "linear"}
        assert len(item["values"]["model"]["rmse"]["frames"]) == item["rollout"]
    assert (folder / "figures" / "error_against_time.png").exists()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if line["kind"] == "test")
    means = [item["values"]["model"]["rmse"]["mean"] for item in report["datasets"]]
    assert last["mean/rmse"] == pytest.approx(sum(means) / 2, rel=1e-6)
    assert last["one/model/full"] == pytest.approx(report["datasets"][0]["scores"]["model"]["full"], rel=1e-6)
    best = json.loads((folder / "checkpoints" / "best.json").read_text())
    assert best["error"] == min(line["mean/rmse"] for line in lines if line["kind"] == "evaluation")


def test_without_the_published_error_and_without_baselines_all_the_rest_is_there(
    experiment: Path,
    command: Command,  # noqa: F811
    tmp_path: Path,
) -> None:
    folder = experiment.parent / "run"
    settings = ("evaluation.figures=true", "metrics=[{type='rmse'}]", "evaluation.baselines=[]", "trainer.steps=2")
    done = command("run", experiment, *options(*settings))
    assert done.returncode == 0, done.stderr
    assert "| dataset | trajectories | frames | rmse, model |" in (folder / "report.md").read_text()
    assert "L2RE" not in (folder / "report.md").read_text()
    assert all(item["scores"] == {} for item in json.loads((folder / "report.json").read_text())["datasets"])
    old = shutil.copytree(MADE, tmp_path / "old")
    runs = [read_finished(folder), read_finished(old)]
    assert measures(runs) == {"rmse": "rmse", "step": "L2RE, one step", "full": "L2RE, roll-out"}
    table = rows(runs, "full", None)
    assert table[0] == ["run", "one", "two", "air", "flow"]
    assert table[1] == ["run", *"----"]
    assert table[2][:3] == ["old", "-", "-"]
    assert all(float(cell) > 0 for cell in table[2][3:])
    assert len(rows(runs[:1], "rmse", None)) == 2
    refused = command("compare", folder, old, "--by", "data.history", "--out", tmp_path / "out")
    assert (refused.returncode, "measured nothing in common" in refused.stderr) == (2, True)
    both = command("compare", folder, old)
    assert (both.returncode, "L2RE, roll-out" in both.stdout, "rmse" in both.stdout) == (0, True, True)
