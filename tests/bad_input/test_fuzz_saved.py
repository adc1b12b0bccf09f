"""Whatever is in a run folder or a weights folder: commands succeed, or say in words what is wrong, and run nothing."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bad_input.test_fuzz import TIMES, bounded, damaged
from bad_input_worker import Worker
from support import write_experiment

IN_RUN = (
    "mark.json",
    ".metadata",
    "best.json",
    "metrics.jsonl",
    "ended.json",
    "data.json",
    "model.toml",
    "config.toml",
)
MARKED = "left by what was unpickled"


class Harmful:
    """Leaves a file where it is unpickled."""

    def __init__(self, place: Path, how: str) -> None:
        self.place, self.how = place, how

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        if self.how == "eval":
            return eval, (f"open({str(self.place)!r}, 'w')",)
        return Path.touch, (self.place,)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was stopped, and the weights of it."""
    folder = tmp_path_factory.mktemp("saved")
    experiment = write_experiment(folder)
    command = [sys.executable, "-m", "opframe"]
    keys = ("trainer.evaluate_every=2", "data.validation=1", "trainer.checkpoint_every=2", "trainer.keep=1")
    settings = [word for key in keys for word in ("--set", key)]
    subprocess.run([*command, "run", str(experiment), "--stop-at", "4", *settings], check=True, capture_output=True)
    export = ["weights", "export", str(folder / "run"), str(folder / "weights")]
    subprocess.run([*command, *export], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("worker"))
    yield worker
    worker.close()


def assert_answered(worker: Worker, *words: object) -> None:
    answer = worker.ask(*map(str, words))
    assert answer.code in (0, 2), answer.printed
    assert "Traceback" not in answer.printed, answer.printed


@TIMES
def test_damaged_run_folders_are_answered_in_words(times: int, saved: Path, worker: Worker, tmp_path: Path) -> None:
    @bounded(250 * times)
    @given(st.data(), st.sampled_from(IN_RUN), st.sampled_from(["checkpoints", "status", "export", "show"]))
    def one(drawn: st.DataObject, name: str, command: str) -> None:
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(saved / "run", run)
        file = next(iter(run.rglob(name)), run / name)
        content = file.read_bytes() if file.exists() else b'{"how": "error", "words": "none", "time": 1.0}'
        file.write_bytes(drawn.draw(damaged(content)))
        if name == ".metadata":  # as somebody would who wants them read: the checksums of the mark are left out
            mark = file.with_name("mark.json")
            mark.write_text('{"step": 4, "processes": 1}')
        words = {"export": ("weights", "export", run, tmp_path / "out"), "show": ("weights", "show", run)}
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert_answered(worker, *words.get(command, (command, run)))

    one()


@TIMES
def test_damaged_weights_are_answered_in_words(times: int, saved: Path, worker: Worker, tmp_path: Path) -> None:
    names = sorted(path.name for path in (saved / "weights").iterdir())

    @bounded(150 * times)
    @given(st.data(), st.sampled_from(names), st.sampled_from(["show", "check"]))
    def one(drawn: st.DataObject, name: str, command: str) -> None:
        weights = tmp_path / "weights"
        shutil.rmtree(weights, ignore_errors=True)
        shutil.copytree(saved / "weights", weights)
        file = weights / name
        file.write_bytes(drawn.draw(damaged(file.read_bytes())))
        words = {"show": ("weights", "show", weights)}
        assert_answered(
            worker, *words.get(command, ("check", saved / "experiment.toml", "--set", f"init.from={weights}"))
        )

    one()


@pytest.mark.parametrize("how", ["eval", "call"])
def test_metadata_that_would_run_something_run_nothing(how: str, saved: Path, worker: Worker, tmp_path: Path) -> None:
    run, place = tmp_path / "run", tmp_path / MARKED
    shutil.copytree(saved / "run", run)
    metadata = next(run.rglob(".metadata"))
    metadata.write_bytes(pickle.dumps(Harmful(place, how)))
    metadata.with_name("mark.json").write_text('{"step": 4, "processes": 1}')
    answer = worker.ask("weights", "export", str(run), str(tmp_path / "out"))
    assert answer.code == 2
    assert "do not trust it" in answer.printed
    assert not place.exists()
    pickle.loads(metadata.read_bytes())
    assert place.exists()  # it would have
