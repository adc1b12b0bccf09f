"""`opframe status` tells how a run is getting on: before, while and after it trains, and what went wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from opframe.run.status import read_status
from opframe_registry import RunError
from slow_support import Phase, start, wait_until_reached
from weights_support import Call


def rows(output: str) -> dict[str, str]:
    """The names of a printed table, and what they say."""
    return dict(re.split(r" {2,}", line.rstrip(), maxsplit=1) for line in output.splitlines()[1:] if "  " in line)


def test_a_run_is_told_of_while_it_trains_and_after_it_was_killed(experiment: Path, cli: Call) -> None:
    options = ("trainer.log_every=1", "trainer.steps=40", "data.validation=1", "trainer.evaluate_every=4")
    phase = Phase(slow="opframe.mixture.loading:Windows.batch", after=11, options=options)
    process = start(experiment, phase)
    run = experiment.parent / "run"
    wait_until_reached(experiment, process)
    begun = time.monotonic()
    found = read_status(run)
    assert time.monotonic() - begun < 0.5
    assert (found.state, found.process, found.step, found.steps, found.saved) == ("running", process.pid, 11, 40, 8)
    assert found.losses.keys() == {"relative_l2"}
    assert found.by_dataset.keys() <= {"relative_l2/one", "relative_l2/two"}
    assert found.evaluated is not None
    assert found.evaluated[0] == 8
    assert found.best is not None
    assert found.left == pytest.approx(29 * (found.seconds or 0))
    assert 0 <= (found.data_wait or 0) <= 1
    shown = cli("status", run).output
    assert shown.startswith(f"{run}: running, process {process.pid}\n")
    assert rows(shown)["step"] == "11 of 40 (28 %)"
    assert "ends" in rows(shown)
    assert json.loads(cli("status", run, "--json").output)["step"] == 11
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "kind": "tr')  # torn
    dead = read_status(run)
    assert (dead.state, dead.process, dead.left) == ("ended without a word; --resume goes on", None, None)


def test_what_ended_a_run_is_told_without_secrets(experiment: Path, cli: Call) -> None:
    run = experiment.parent / "run"
    changed = [word for each in ("optimizer.learning_rate=1e30", "schedule.div_factor=1") for word in ("--set", each)]
    assert cli("run", experiment, *changed).code == 2
    found = read_status(run)
    assert found.state == "ended by an error"
    assert (found.wrong or "").startswith("training diverged by step ")
    assert "training diverged" in cli("status", run).output
    assert cli("run", experiment, *changed, "--set", "optimizer.learning_rate=1e-3", "--stop-at", 6).code == 0
    assert read_status(run).state == "interrupted; --resume goes on"
    assert cli("run", experiment, *changed, "--set", "optimizer.learning_rate=1e-3", "--resume").code == 0
    done = read_status(run)
    assert (done.state, done.step, done.wrong, done.left) == ("finished", 8, None, None)


@pytest.mark.parametrize("width", [60, 80])
def test_it_fits_into_narrow_terminals(
    experiment: Path, cli: Call, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    assert cli("run", experiment, "--stop-at", 6).code == 0
    monkeypatch.setenv("COLUMNS", str(width))
    shown = cli("status", experiment.parent / "run").output
    assert all(len(line) <= width for line in shown.splitlines()[1:])


def test_what_is_no_run_is_said(tmp_path: Path, cli: Call) -> None:
    refused = cli("status", tmp_path)
    assert refused.code == 2
    assert refused.errors == f"error: {tmp_path} is not the folder of a run: there is no config.toml in it\n"
    (tmp_path / "config.toml").write_text("[trainer]\nsteps = 'many'\n")
    with pytest.raises(RunError, match=r"config\.toml: cannot be read"):
        read_status(tmp_path)


def test_a_run_that_has_said_nothing_yet_and_a_damaged_journal(tmp_path: Path, cli: Call) -> None:
    (tmp_path / "config.toml").write_text("[trainer]\nsteps = 10\n")
    assert rows(cli("status", tmp_path).output) == {"step": "0 of 10 (0 %)"}
    entries: list[Any] = [{"step": 2, "kind": "train", "time": 5.0, "loss": None}, [1], "x", 3]
    torn = b"\xff\xfe\n" + b"".join(json.dumps(entry).encode() + b"\n" for entry in entries) + os.urandom(50)
    (tmp_path / "metrics.jsonl").write_bytes(torn)
    assert read_status(tmp_path).step == 2
