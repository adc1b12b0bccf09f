"""Processes that prepare one cache at the same moment: one makes a file, the others wait for it and find it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

MAKE = """
import sys, time
from pathlib import Path
from opframe.files.once import made_once
path = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
with made_once(path):
    if not path.exists():
        partial = path.with_suffix(".partial")
        with partial.open("w") as file:
            for _ in range(10):
                file.write("a line\\n")
                time.sleep(float(sys.argv[2]))
        partial.rename(path)
        print("made", flush=True)
print("found", path.read_text().count("\\n"), flush=True)
"""


def begun(path: Path, pause: float) -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", MAKE, str(path), str(pause)], **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked there")
def test_one_of_several_processes_makes_a_file_and_a_killed_one_keeps_nobody_waiting(tmp_path: Path) -> None:
    for attempt in range(3):
        path = tmp_path / str(attempt) / "made"
        several = [begun(path, 0.01) for _ in range(3)]
        for process in several:
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate(timeout=60) for process in several]
        assert sorted(output for output, _ in said) == ["found 10\n", "found 10\n", "made\nfound 10\n"]
        assert sum("another process makes something there; waiting for it" in errors for _, errors in said) >= 1
        assert [each.name for each in path.parent.iterdir()] == ["made"]
    path = tmp_path / "killed" / "made"
    first, second = begun(path, 0.5), begun(path, 0.01)
    first.stdin.write("go\n")
    first.stdin.flush()
    while not path.with_suffix(".partial").exists():
        time.sleep(0.01)
    second.stdin.write("go\n")
    second.stdin.flush()
    time.sleep(0.2)
    os.kill(first.pid, signal.SIGKILL)
    output, errors = second.communicate(timeout=60)
    first.communicate()
    assert output == "made\nfound 10\n", errors


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked there")
def test_two_runs_that_begin_at_one_moment_solve_their_data_once(tmp_path: Path) -> None:
    config = tmp_path / "solved.toml"
    config.write_text(
        '[run]\nfolder = "RUN"\n[data]\ncache = "cache"\ngrid = [16, 16]\nhistory = 2\nbatch_size = 2\n'
        '[[datasets]]\ntype = "diffusion_reaction"\nresolution = 16\ntrain = 4\ntest = 2\nframes = 5\n'
        '[normalizer]\ntype = "dataset"\n'
        '[sampler]\ntype = "balanced"\n[backbone]\ntype = "dpot"\nwidth = 16\ndepth = 1\nheads = 2\npatch = 4\n'
        '[objective]\ntype = "relative_l2"\n[optimizer]\ntype = "adam"\n[schedule]\ntype = "constant"\n'
        '[trainer]\nsteps = 1\ndevice = "cpu"\n[evaluation]\nfigures = false\n'
    )
    command = [sys.executable, "-m", "opframe", "run", str(config), "--set"]
    several = [
        subprocess.Popen(
            [*command, f"run.folder={tmp_path / name}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    for process in several:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert not list((tmp_path / "cache").rglob("*.partial"))
    assert len(list((tmp_path / "cache").rglob("*.h5"))) == 2
    assert len(list((tmp_path / "cache" / "statistics").iterdir())) == 1
