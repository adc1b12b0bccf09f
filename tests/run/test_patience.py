"""A server that is away in the midst of training is waited for as `data.patience` says; then the run saves and ends."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from opframe.files.cache import remote_cache
from servers import FileServer
from support import assert_same_training, waves, write_prepared
from weights_support import Call


@pytest.fixture
def remote(experiment: Path, server: FileServer) -> Path:
    """The experiment with one of its datasets on a server, in many blocks."""
    content = write_prepared(experiment.parent / "far.h5", waves(160, 12, 32)).read_bytes()
    url = server.serve("far.h5", content)
    text = experiment.read_text().replace('url = "two.h5"', f'url = "{url}"').replace("weight = 2.0", "weight = 20.0")
    experiment.write_text(text)
    return experiment


def away_after_step_3(run: Path, server: FileServer, seconds: float) -> None:
    def wait() -> None:
        journal = run / "metrics.jsonl"
        deadline = time.monotonic() + 60
        while not (journal.exists() and b'"step": 3,' in journal.read_bytes()):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        server.busy_until = time.monotonic() + seconds

    threading.Thread(target=wait, daemon=True).start()


def test_a_server_that_is_away_is_waited_for_and_then_the_run_is_saved(
    remote: Path, server: FileServer, cli: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = remote.parent / "run"
    words = (
        "run",
        remote,
        "--set",
        "trainer.checkpoint_every=100",
        "--set",
        "trainer.steps=40",
        "--set",
        "trainer.log_every=1",
    )
    words += ("--set", "evaluation.overlap=false", "--set", "evaluation.trajectories=1")
    assert cli(*words, "--set", f"run.folder={run.with_name('undisturbed')}").code == 0
    monkeypatch.setenv("OPFRAME_CACHE", str(tmp_path / "fresh"))
    remote_cache.cache_clear()
    server.delay = 0.05
    away_after_step_3(run, server, 30.0)
    refused = cli(*words, "--set", "data.patience=2s")
    assert refused.code == 2
    assert "HTTP 503" in refused.errors
    assert "the run is saved at step " in refused.errors
    assert "Traceback" not in refused.errors
    server.busy_until = time.monotonic() + 3.0
    done = cli(*words, "--resume", "--set", "data.patience=60s")
    assert done.code == 0, done.errors
    assert_same_training(run, run.with_name("undisturbed"), 40)
    remote_cache.cache_clear()


def test_processes_have_to_wait_for_each_other_longer_than_for_a_server(remote: Path, cli: Call) -> None:
    refused = cli("check", remote, "--set", "trainer.timeout=5m")
    assert refused.code == 2
    assert "trainer.timeout = '5m' has to be longer than data.patience = '10m'" in refused.errors
