"""The plugin tutorial, carried out: what it tells third parties to write is installed and trained on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Command
from support import ROOT

BLOCK = re.compile(r"^`([^`\n]+)`:\n\n```(?:toml|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the tutorial, with its plugin installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("tutorial")
    blocks = BLOCK.findall((ROOT / "docs" / "write-a-plugin.md").read_text(encoding="utf-8"))
    assert len(blocks) == 4
    for name, content in blocks:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
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


def test_the_tutorial_plugin_is_typed(tutorial: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", str(tutorial / "opframe-heat" / "opframe_heat")]
    environment = {**os.environ, "MYPYPATH": str(tutorial / "opframe-heat")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tutorial, env=environment, timeout=120)
    assert done.returncode == 0, done.stdout
