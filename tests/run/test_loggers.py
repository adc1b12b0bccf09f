"""Loggers get the numbers and pictures of a run; one that fails is left out, and a resumed run says nothing twice."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from plugin_support import install
from weights_support import Call, command_line

EVALUATED = ("--set", "trainer.evaluate_every=4", "--set", "evaluation.trajectories=1", "--set", "data.validation=1")

RECORDING = '''
import json
from typing import ClassVar
from attrs import frozen
from opframe_registry import Logger, hookimpl

class Live:
    def __init__(self, run, fails):
        self.path, self.fails = run.folder / "recorded.jsonl", fails
        self.write("begun", run.step, run.title, run.settings["trainer"]["steps"])

    def write(self, *record):
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\\n")

    def log(self, step, kind, values):
        if self.fails and step > 2:
            raise ConnectionError("no route to host")
        self.write("log", step, kind, sorted(values))

    def image(self, step, name, image):
        self.write("image", step, name, list(image.shape), str(image.dtype), int(image.min()), int(image.max()))

    def close(self):
        self.write("closed")

@frozen(kw_only=True)
class Recording(Logger):
    """Writes down what it is asked for."""
    name: ClassVar[str] = "recording"
    images: ClassVar[bool] = IMAGES
    fails: bool = False
    def build(self, run):
        return Live(run, self.fails)

@hookimpl
def opframe_components():
    return [Recording]
'''


@pytest.fixture
def opframe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line."""
    return command_line(monkeypatch, capsys)


def recorded(run: Path, what: str) -> list[list[object]]:
    records = map(json.loads, (run / "recorded.jsonl").read_text().splitlines())
    return [record[1:] for record in records if record[0] == what]


def lines(run: Path) -> list[tuple[str, int]]:
    """Kind and step of every line of `metrics.jsonl`."""
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(record["kind"], record["step"]) for record in records]


WHOLE = [
    *[("train", 2), ("train", 4), ("evaluation", 4), ("train", 6), ("train", 8), ("evaluation", 8)],
    ("test", 8),
]


def test_a_third_party_logger_gets_numbers_and_pictures_beside_json_lines(
    site: Path, experiment: Path, opframe: Call
) -> None:
    install(site, "recording", RECORDING.replace("IMAGES", "True"))
    figures = ("--set", "evaluation.figures=true")
    done = opframe("run", experiment, *EVALUATED, *figures, "--set", "loggers=[{type='recording'}]")
    assert done.code == 0, done.errors
    run = experiment.parent / "run"
    assert recorded(run, "begun") == [[0, "run", 8]]
    assert [(kind, step) for step, kind, _ in recorded(run, "log")] == WHOLE == lines(run)
    named = {kind: names for _, kind, names in recorded(run, "log")}
    always = {"relative_l2", "gradient_norm", "learning_rate", "samples_per_second", "data_wait", "memory_gb"}
    of_each = {f"{name}/{title}" for name in ("drawn", "target") for title in ("one", "two")}
    assert always | of_each <= set(named["train"])
    rest = set(named["train"]) - always - of_each
    assert rest <= {"by_dataset/relative_l2/one", "by_dataset/relative_l2/two"}
    assert rest
    assert "mean/full" in named["evaluation"]
    assert named["evaluation"] == named["test"]
    pictures = recorded(run, "image")
    small = [(step, f"evaluation/{title}") for step in (4, 8) for title in ("one", "two")]
    final = [(8, f"test/{name}") for name in ("error_against_time", "rollout_one", "rollout_two")]
    assert [(step, name) for step, name, *_ in pictures] == [*small, *final]
    for _, name, shape, dtype, least, most in pictures:
        assert (len(shape), shape[2], dtype) == (3, 3, "uint8"), name
        assert least < 50 < 205 < most, name
    assert len(recorded(run, "closed")) == 1
    assert not (run / "events").exists()


def test_a_logger_that_takes_no_pictures_has_none_drawn(
    site: Path, experiment: Path, opframe: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "without-pictures", RECORDING.replace("IMAGES", "False"))

    def drawn(*_: object) -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr("opframe.run.trainer.rollout_pictures", drawn)
    done = opframe("run", experiment, *EVALUATED, "--set", "loggers=[{type='recording'}]")
    assert (done.code, recorded(experiment.parent / "run", "image")) == (0, [])
    with pytest.raises(AssertionError, match="drawn"):
        opframe("run", experiment, *EVALUATED, "--set", f"run.folder={experiment.parent / 'other'}")


def test_a_logger_that_fails_is_named_once_and_training_goes_on(site: Path, experiment: Path, opframe: Call) -> None:
    install(site, "recording", RECORDING.replace("IMAGES", "True"))
    done = opframe("run", experiment, *EVALUATED, "--set", "loggers=[{type='recording', fails=true}]")
    assert done.code == 0, done.errors
    said = "the logger recording is left out from here on: logger 'recording' of the plugin recording: log raised "
    assert done.output.count(said + "ConnectionError: no route to host (") == 1
    run = experiment.parent / "run"
    assert [step for step, *_ in recorded(run, "log")] == [2]
    assert recorded(run, "image") == recorded(run, "closed") == []
    assert lines(run) == WHOLE


def test_a_resumed_run_has_every_number_once(experiment: Path, opframe: Call) -> None:
    """What lies beyond the checkpoint, and half a line, are of a run that was killed."""
    run = experiment.parent / "run"
    assert opframe("run", experiment, *EVALUATED, "--stop-at", 4).code == 0
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "kind": "train", "time": 1.0, "relative_l2": 9.0}\n{"step": 8, "ki')
    assert opframe("run", experiment, *EVALUATED, "--resume").code == 0
    assert lines(run) == WHOLE
    assert opframe("run", experiment, *EVALUATED, "--resume").code == 0  # makes the report again
    assert lines(run) == WHOLE
    events = EventAccumulator(str(run / "events"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/relative_l2")] == [2, 4, 6, 8]
    assert [event.step for event in events.Scalars("evaluation/mean/full")] == [4, 8]
    assert [event.step for event in events.Images("evaluation/one")] == [4, 8]


def test_a_config_of_before_has_the_loggers_that_every_run_had(experiment: Path, opframe: Call) -> None:
    for listed, expected in (("", ["json_lines", "tensorboard"]), ("loggers = []\n", ["json_lines"])):
        path = experiment.with_name("other.toml")
        path.write_text(listed + experiment.read_text())
        folder = experiment.parent / f"run-{len(expected)}"
        done = opframe("run", path, "--set", f"run.folder={folder}", "--stop-at", 1)
        assert done.code == 0, done.errors
        stored = (folder / "config.toml").read_text()
        assert [name for name in ("json_lines", "tensorboard", "wandb") if f'"{name}"' in stored] == expected
        assert (folder / "metrics.jsonl").exists()
        assert (folder / "events").exists() == ("tensorboard" in expected)


def test_a_logger_is_not_listed_twice(experiment: Path, opframe: Call) -> None:
    done = opframe("check", experiment, "--set", "loggers=[{type='tensorboard'}, {type='tensorboard'}]")
    assert done.code == 2
    assert "loggers[2]: 'tensorboard' is listed twice with the same keys; remove one" in done.errors


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_package_that_is_missing_is_named_before_training(
    name: str, experiment: Path, opframe: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    done = opframe("run", experiment, "--set", f"loggers=[{{type='{name}'}}]")
    assert done.code == 2
    assert f'the logger {name} needs a package: pip install "opframe[{name}]"' in done.errors
    assert not (experiment.parent / "run" / "checkpoints").exists()


def test_mlflow_has_the_run_once_in_its_local_files(
    experiment: Path, opframe: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = experiment.parent / "tracked"
    options = (*EVALUATED, "--set", f"loggers=[{{type='mlflow', uri='{store}'}}]", "--set", "title=waves")
    assert opframe("run", experiment, *options, "--stop-at", 6).code == 0
    run = experiment.parent / "run"
    newest = run / "checkpoints" / "step-00000006"
    newest.rename(newest.with_name("lost"))  # as where the run was killed at step 6: it goes on from step 4
    assert opframe("run", experiment, *options, "--resume").code == 0
    client = mlflow.MlflowClient(tracking_uri=store.as_uri())
    (found,) = client.search_runs([client.get_experiment_by_name("opframe").experiment_id])
    assert (found.info.run_name, found.info.status) == ("waves", "FINISHED")
    assert found.data.params["datasets.1.label"] == "two"
    id_ = found.info.run_id
    assert [entry.step for entry in client.get_metric_history(id_, "train/relative_l2")] == [2, 4, 6, 8]
    assert [entry.step for entry in client.get_metric_history(id_, "test/mean/full")] == [8]
    pictures = [Path(item.path).name for item in client.list_artifacts(id_, "images")]
    steps = [name.split("+")[2] for name in pictures if name.startswith("evaluation~one") and name.endswith(".png")]
    assert sorted(steps) == ["4", "8"]
    lines_of_run = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert client.get_metric_history(id_, "test/mean/full")[0].value == lines_of_run[-1]["mean/full"]


BLOCK, HEADER = 32768, 7


def wandb_records(path: Path) -> Iterator[bytes]:
    """The records of an offline file: a head of seven bytes, then LevelDB's log format."""
    content, position, whole = path.read_bytes(), HEADER, b""
    while position + HEADER <= len(content):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        _, length, part = struct.unpack("<IHB", content[position : position + HEADER])
        position += HEADER + length
        whole += content[position - length : position]
        if part in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def test_wandb_keeps_the_run_offline_under_one_id(experiment: Path, opframe: Call) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    options = (*EVALUATED, "--set", "loggers=[{type='wandb', mode='offline'}]", "--set", "title=waves")
    assert opframe("run", experiment, *options, "--stop-at", 4).code == 0
    assert opframe("run", experiment, *options, "--resume").code == 0
    run = experiment.parent / "run"
    (id_,) = json.loads((run / "wandb.json").read_text()).values()
    parts = sorted((run / "wandb").glob(f"offline-run-*-{id_}/*.wandb"))
    history: list[dict[str, object]] = []
    for part in parts:
        for data in wandb_records(part):
            record = Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                assert record.run.display_name == "waves"
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                history.append({"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items})
    losses = [(entry["_step"], entry["train/relative_l2"]) for entry in history if "train/relative_l2" in entry]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert losses == [(entry["step"], entry["relative_l2"]) for entry in records if entry["kind"] == "train"]
    assert [entry["_step"] for entry in history if "evaluation/one/_type" in entry] == [4, 8]
    assert [entry["_step"] for entry in history if "test/mean/full" in entry] == [8]
    (drawn,) = (run / "wandb").glob(f"offline-run-*-{id_}/files/media/images/evaluation/one_8_*.png")
    assert np.asarray(Image.open(drawn)).shape[2] == 3
