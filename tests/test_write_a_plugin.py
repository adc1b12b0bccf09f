"""The plugin tutorial, carried out: what it tells third parties to write is installed and trained on."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest
import torch

from conftest import Command
from opframe_registry import Metadata, RunInfo, discover
from support import ROOT

BLOCK = re.compile(r"^`([^`\n]+)`:\n\n```(?:toml|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)

FURTHER = re.compile(r"`opframe_more/(\w+\.py)`, [^\n]+:\n\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the tutorial, with its plugin installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("tutorial")
    blocks = BLOCK.findall((ROOT / "docs" / "write-a-plugin.md").read_text(encoding="utf-8"))
    assert len(blocks) == 4
    for name, content in blocks:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    for name, content in FURTHER.findall((ROOT / "docs" / "write-a-plugin.md").read_text(encoding="utf-8")):
        (folder / "more" / "opframe_more").mkdir(parents=True, exist_ok=True)
        (folder / "more" / "opframe_more" / name).write_text(content, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*command, str(folder / "site"), str(folder / "opframe-heat")], check=True, timeout=120)
    return folder


def test_an_installed_third_party_dataset_is_listed_and_shown(tutorial: Path, opframe: Command) -> None:
    environment = {"PYTHONPATH": str(tutorial / "site")}
    assert "Heat equation u_t = κ Δu" in opframe("list", env=environment).stdout
    shown = opframe("show", "heat", env=environment).stdout
    assert "conductivity" in shown
    assert "from opframe-heat" in shown


def test_the_same_kind_of_config_trains_on_it_and_beats_persistence(tutorial: Path, opframe: Command) -> None:
    done = opframe("run", tutorial / "heat.toml", env={"PYTHONPATH": str(tutorial / "site")})
    assert done.returncode == 0, done.stderr
    assert "The model beats persistence on every dataset" in done.stdout
    assert (tutorial / "runs" / "heat" / "figures" / "rollout_heat.png").exists()


def test_its_windows_reach_loader_workers(tutorial: Path, opframe: Command) -> None:
    options = ("--set", "data.workers=1", "--set", "trainer.steps=4", "--set", f"run.folder={tutorial / 'workers'}")
    done = opframe("run", tutorial / "heat.toml", *options, env={"PYTHONPATH": str(tutorial / "site")})
    assert done.returncode == 0, done.stderr


def test_it_keeps_every_promise_of_a_dataset(tutorial: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tutorial}"]
    environment = {**os.environ, "PYTHONPATH": str(tutorial / "site")}
    done = subprocess.run(
        [*command, "--opframe", "opframe-heat"],
        capture_output=True,
        text=True,
        cwd=tutorial,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tutorial_plugin_and_the_further_examples_are_typed(tutorial: Path) -> None:
    packages = [tutorial / "opframe-heat" / "opframe_heat", tutorial / "more" / "opframe_more"]
    command = [sys.executable, "-m", "mypy", "--strict", *map(str, packages)]
    environment = {**os.environ, "MYPYPATH": os.pathsep.join(str(package.parent) for package in packages)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tutorial, env=environment, timeout=120)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def more(tutorial: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The plugin of the further examples, found as an installed one."""
    info = tutorial / "more" / "opframe_more-0.1.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: opframe-more\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[opframe.v1]\nmore = opframe_more\n")
    monkeypatch.syspath_prepend(str(tutorial / "more"))
    return importlib.import_module("opframe_more")


METADATA = Metadata(trajectories=1, frames=3, grid=(4, 4), channels=("u", "v"), predicted=("u", "v"))


def test_the_examples_of_the_kinds_that_accompany_training_are_offered(more: ModuleType) -> None:
    (plugin,) = (plugin for plugin in discover().plugins if plugin.distribution == "opframe-more")
    assert plugin.error is None
    offered = {component.kind: component.name for component in plugin.components}
    assert offered == {"normalizer": "logarithm", "metric": "largest_error", "logger": "text", "callback": "goal"}


def test_the_normalizer_and_the_metric_of_the_examples_do_what_they_say(more: ModuleType) -> None:
    frames = torch.rand(3, 2, 4, 4) + 0.5
    frames[0, 0, 0, 0] = torch.nan
    normalization = more.Logarithm().build(METADATA)
    normalization.fit([frames])
    mapped = normalization.apply(frames.clone())
    assert float(mapped.nan_to_num().min()) == 0
    torch.testing.assert_close(normalization.restore(mapped), frames, equal_nan=True)
    truth, mask = torch.zeros(1, 3, 2, 4, 4), torch.ones(1, 3, 1, 1, 1)
    mask[:, 2] = 0
    prediction = truth.clone()
    prediction[0, 1, 0, 0, 0] = -3
    prediction[0, 2] = torch.nan
    measured = more.LargestError().build(None)(prediction, truth, mask, METADATA)["largest_error"]
    torch.testing.assert_close(measured, torch.tensor([[0.0, 3.0, torch.nan]]), equal_nan=True)


def test_the_logger_of_the_examples_drops_what_is_beyond_the_step(more: ModuleType, tmp_path: Path) -> None:
    for step in (0, 1):
        log = more.Text().build(RunInfo(folder=tmp_path, title="", settings={}, step=step))
        log.log(1, "train", {"loss": 0.5})
        log.log(2, "train", {"loss": 0.25 + step})
        log.close()
    lines = ["1 train loss 0.5", "1 train loss 0.5", "2 train loss 1.25"]
    assert (tmp_path / "log.txt").read_text().splitlines() == lines


def test_the_callback_of_the_examples_stops_at_its_goal_with_its_state(more: ModuleType) -> None:
    class Asked:
        reasons: ClassVar[list[str]] = []

        def log(self, values: Mapping[str, float]) -> None: ...

        def stop(self, reason: str) -> None:
            self.reasons.append(reason)

    watch, training = more.Goal(below=0.1).build(), Asked()
    watch.after_evaluation(training, {"selected": 0.5})
    assert not training.reasons
    resumed = more.Goal(below=0.1).build()
    resumed.load_state_dict(watch.state_dict())
    assert resumed.best == 0.5
    resumed.after_evaluation(training, {"selected": 0.05})
    assert training.reasons == ["the goal of 0.1 is reached"]
