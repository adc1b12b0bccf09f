"""A sea with land is trained on, evaluated and gone on with, as said in a config."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from data_support import Command, command

__all__ = ["command"]

CONFIG = """
[run]
folder = "run"
[data]
grid = [16, 16]
history = 3
batch_size = 2
[[datasets]]
type = "array"
label = "sea"
url = "sea.npy"
axes = "n t x y"
test = 1
missing = nan
boundary = ["wall to open", "periodic"]
parameters = { nu = 0.1, depth = [1.0, 2, 3, 4] }
[sampler]
type = "balanced"
[backbone]
type = "dpot"
width = 16
depth = 1
heads = 2
patch = 4
[objective]
type = "relative_l2"
frames = 2
[optimizer]
type = "adam"
[schedule]
type = "one_cycle"
[trainer]
steps = 4
device = "cpu"
log_every = 1
[evaluation]
figures = false
"""


def test_a_sea_is_trained_on_and_its_run_knows_itself_again(tmp_path: Path, command: Command) -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, (4, 8, 16, 16)).astype("f4")
    values[:, :, 3:6, 4:9], values[1, 4, 10, 10] = np.nan, np.nan
    np.save(tmp_path / "sea.npy", values)
    (tmp_path / "sea.toml").write_text(CONFIG)
    done = command("run", tmp_path / "sea.toml")
    assert done.returncode in (0, None), done.stderr
    losses = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(value) for line in losses for value in line.values() if isinstance(value, float))
    again = command("run", tmp_path / "sea.toml", "--resume")
    assert again.returncode in (0, None), again.stderr
    (tmp_path / "sea.toml").write_text(CONFIG.replace("missing = nan", "missing = -999"))
    other = command("run", tmp_path / "sea.toml", "--resume")
    assert other.returncode == 2
    assert "datasets[0].missing: nan there, -999.0 here" in other.stderr
