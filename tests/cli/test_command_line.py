"""The command line: what it prints, leaves behind and answers to mistakes."""

from __future__ import annotations

import json
import re
import tomllib
from io import StringIO
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conftest import Command
from opframe import __version__
from opframe.cli.main import main
from opframe.console import counted
from opframe.evaluation.report import make_tables
from opframe.evaluation.scores import DatasetReport, Measure, Report, Value
from support import EXPERIMENT, ROOT, waves, write_prepared


def test_a_run_leaves_a_folder_that_explains_itself(experiment: Path, opframe: Command) -> None:
    settings = ("evaluation.figures=true", "trainer.evaluate_every=4", "data.validation=1")
    done = opframe("run", experiment, *(word for setting in settings for word in ("--set", setting)))
    assert done.returncode == 0, done.stderr
    assert "L2RE on test trajectories" in done.stdout
    folder = experiment.parent / "run"
    report = json.loads((folder / "report.json").read_text())
    assert [item["title"] for item in report["datasets"]] == ["one", "two"]
    beaten = all(
        item["scores"]["model"][measure] < item["scores"]["persistence"][measure]
        for item in report["datasets"]
        for measure in ("step", "full")
    )
    assert ("The model beats persistence on every dataset" in done.stdout) is beaten
    assert ("The model does NOT beat persistence on" in done.stdout) is not beaten
    resolved = tomllib.loads((folder / "config.toml").read_text())
    assert resolved["backbone"]["mlp_ratio"] == 1.0
    environment = json.loads((folder / "environment.json").read_text())
    assert {"device", "packages", "plugins", "git_commit", "command"} <= set(environment)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [2, 4, 6, 8]
    assert [line["step"] for line in lines if line["kind"] == "evaluation"] == [4, 8]
    events = EventAccumulator(str(folder / "events"))
    events.Reload()
    assert {"train/relative_l2", "train/learning_rate", "evaluation/mean/full"} <= set(events.Tags()["scalars"])
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert figures == {"rollout_one.png", "rollout_two.png", "error_against_time.png"}
    assert "![rollout_one](figures/rollout_one.png)" in (folder / "report.md").read_text()


def test_a_run_can_be_repeated_from_its_folder(experiment: Path, opframe: Command) -> None:
    assert opframe("run", experiment).returncode == 0
    again = opframe("run", experiment.parent / "run" / "config.toml", "--set", f"run.folder={experiment.parent / 'b'}")
    assert again.returncode == 0, again.stderr
    reports = [(experiment.parent / name / "report.json").read_text() for name in ("run", "b")]
    assert reports[0] == reports[1]


def test_an_existing_run_is_described_and_not_overwritten(experiment: Path, opframe: Command) -> None:
    assert opframe("run", experiment, "--stop-at", 4).returncode == 0
    again = opframe("run", experiment)
    assert again.returncode == 2
    assert "holds a run that stopped at step 4 of 8" in again.stderr
    assert f"continue or evaluate it: opframe run {experiment} --resume" in again.stderr
    assert opframe("run", experiment, "--resume").returncode == 0
    assert "holds a finished run (8 steps)" in opframe("run", experiment).stderr


def test_a_folder_with_another_experiment_is_refused_naming_what_differs(experiment: Path, opframe: Command) -> None:
    assert opframe("run", experiment, "--stop-at", 4).returncode == 0
    for flag in ([], ["--resume"], ["--resume", "--nproc", "2"]):
        other = opframe("run", experiment, *flag, "--set", "backbone.depth=2", "--set", "run.seed=5")
        assert other.returncode == 2
        assert "backbone.depth: 1 there, 2 here" in other.stderr
        assert "run.seed: 0 there, 5 here" in other.stderr
    (experiment.parent / "mine").mkdir()
    (experiment.parent / "mine" / "thesis.txt").write_text("precious")
    mine = opframe("run", experiment, "--set", f"run.folder={experiment.parent / 'mine'}")
    assert (mine.returncode, "is not a run of opframe" in mine.stderr) == (2, True)
    assert [path.name for path in (experiment.parent / "mine").iterdir()] == ["thesis.txt"]


def damage(folder: Path, how: str) -> None:
    """Make one file of the small experiment bad."""
    path = folder / "one.h5"
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-5000])
    elif how == "not finite":
        with h5py.File(path, "a") as file:
            file["data"][3, 5, 6, :, 0] = np.nan
    elif how == "too short":
        write_prepared(path, waves(6, 4, 16))
    elif how == "wrong shape":
        write_prepared(path, waves(6, 12, 16)[0, 0])


@pytest.mark.parametrize(
    ("how", "settings", "expected"),
    [
        ("missing", [], "one.h5: no such file"),
        ("truncated", [], "one.h5: cannot be read as HDF5; truncated"),
        ("not finite", [], "one: trajectory 3 holds nan in frame"),
        ("not finite", ["data.workers=1"], "one: trajectory 3 holds nan in frame"),
        ("too short", [], "one: trajectories have 4 frames, but a window takes 5"),
        ("wrong shape", [], "'data' has shape (16, 12, 1); expected (N, *grid, T, C)"),
        ("", ["backbone.patch=3"], "patch = 3 does not divide the grid 16×16"),
        ("", ["backbone.type=dpott"], "unknown backbone 'dpott'; did you mean 'dpot'?"),
        ("", ["data.batch_size=5", "trainer.accumulate=6"], "data.batch_size = 5 cannot be shared"),
        ("", ["datasets.0.url=nowhere://x.h5"], "nowhere://x.h5: Protocol not known: nowhere"),
        ("", ["data.grid=[16]"], "data.grid: [16] has 1 axis, but one is given on the grid [16, 16]"),
        ("", ["optimizer.learning_rate=1e30", "trainer.steps=20"], "training diverged"),
    ],
)
def test_bad_input_is_one_clear_error(
    experiment: Path, opframe: Command, how: str, settings: list[str], expected: str
) -> None:
    damage(experiment.parent, how)
    done = opframe("run", experiment, *[word for setting in settings for word in ("--set", setting)])
    assert done.returncode == 2, done.stdout + done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_check_says_what_would_run_and_what_is_missing(experiment: Path, opframe: Command) -> None:
    ready = opframe("check", experiment)
    assert ready.returncode == 0, ready.stderr
    assert "one: 4 trajectories of 12 frames, grid 16x16, channels c0" in ready.stdout
    assert "ready to run" in ready.stdout
    assert not (experiment.parent / "run").exists()
    experiment.write_text(EXPERIMENT + '[[zero_shot]]\ntype = "navier_stokes"\n')
    assert "has not been prepared yet" in opframe("check", experiment).stdout


def test_show_prints_keys_defaults_help_and_presets(opframe: Command) -> None:
    shown = opframe("show", "dpot").stdout
    assert "Fourier-attention transformer" in shown
    assert "mlp_ratio" in shown
    assert 'size = "tiny": width = 512' in shown
    unknown = opframe("show", "nothing")
    assert (unknown.returncode, "unknown component 'nothing'" in unknown.stderr) == (2, True)


def test_the_configuration_page_is_the_one_that_the_classes_generate(opframe: Command) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert opframe("schema", "--markdown").stdout == page


def test_a_run_that_failed_before_training_does_not_block_its_folder(experiment: Path, opframe: Command) -> None:
    assert opframe("run", experiment, "--set", "data.batch_size=5", "--set", "trainer.accumulate=6").returncode == 2
    assert opframe("run", experiment).returncode == 0


def test_a_mistake_is_said_once_for_all_processes(experiment: Path, opframe: Command) -> None:
    done = opframe("run", experiment, "--nproc", 2, "--set", "data.batch_size=1")
    assert done.returncode == 2
    assert done.stderr.count("error: data.batch_size = 1 cannot be shared by 2 processes") == 1


def words_of(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    """What a command prints, to either stream, in this process."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    printed = capsys.readouterr()
    assert ended.value.code == code, printed
    return printed.out + printed.err


def test_a_person_who_writes_no_command_or_a_wrong_one_is_helped(capsys: pytest.CaptureFixture[str]) -> None:
    assert "train, evaluate and report what a config describes" in words_of(capsys)
    assert "look at every value of every trajectory" in words_of(capsys, "data")
    assert "make a weights folder of a run" in words_of(capsys, "weights")
    assert words_of(capsys, "--version") == f"opframe {__version__}\n"
    assert "unknown: 'rnu'; did you mean 'run'?" in words_of(capsys, "rnu", code=2)
    assert "unknown: 'chekc'; did you mean 'check'?" in words_of(capsys, "data", "chekc", code=2)


@pytest.mark.parametrize("columns", [80, 60])
def test_a_comparison_of_eight_datasets_cuts_no_name_and_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    names = [f"pdebench_cns_2d_{index}" for index in range(8)]
    runs = [tmp_path / name for name in ("dpot_pretrain_long", "fno", "moepot_pretrain", "[unet]")]
    for number, run in enumerate(runs):
        run.mkdir()
        (run / "config.toml").write_text(f"[run]\nseed = {number}\n")
        model = [{"step": 0.1 * number + 0.0123 * i, "full": 12.0 * number + 0.3456 * i} for i in range(8)]
        scores = [
            {"title": name, "scores": {"model": model[i], "persistence": model[0]}} for i, name in enumerate(names)
        ]
        (run / "report.json").write_text(json.dumps({"datasets": scores}))
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = words_of(capsys, "compare", *runs, "--by", "run.seed").splitlines()
    assert max(map(len, lines)) <= columns
    cells = " ".join(lines).split()
    for number in range(4):
        for index in range(8):
            assert {f"{0.1 * number + 0.0123 * index:.4f}", f"{12.0 * number + 0.3456 * index:.4f}"} <= set(cells)
    assert set(names) <= set(cells)
    assert "…" not in "".join(lines)
    assert {"fno", "[unet]", "dpot_pretrain_"} <= set(cells)


@pytest.mark.parametrize("columns", [100, 60, 40])
def test_the_table_at_the_end_of_a_run_cuts_no_number(columns: int) -> None:
    values = {
        "relative_l2": Value(mean=0.98765, frames=(1.0,)),
        "relative_l2_rollout": Value(mean=123.45678),
        "bias": Value(mean=-0.000123456),
        "spectral_distance": Value(mean=654321.0),
    }
    common = {
        "trajectories": 1,
        "rollout": 1,
        "time_step": None,
        "history": 1,
        "values": dict.fromkeys(("model", "persistence", "linear"), values),
    }
    measures = tuple(
        Measure(name=name, metric=metric, better="lower", per_frame=value.frames is not None)
        for metric, names in (("relative_l2", [*values][:2]), ("others", [*values][2:]))
        for name, value in values.items()
        if name in names
    )
    seen = DatasetReport(title="shallow_water_radial_dam_break", zero_shot=False, **common)
    datasets = (seen, DatasetReport(title="two", zero_shot=True, **common))
    report = Report(datasets=datasets, measures=measures, baselines={"persistence": "", "linear": ""})
    console = Console(width=columns, file=StringIO(), record=True)
    for table in make_tables(report, console):
        console.print(table)
    text = console.export_text()
    assert (text.count("0.9877"), text.count("123.4568")) == (6, 6)
    assert (text.count("-0.0001235"), text.count("6.543e+05")) == (6, 6)
    words = " ".join(text.split())  # a heading may take two lines
    assert "L2RE on test trajectories" in words
    assert "others on test trajectories" in words
    assert "".join(word for word in text.split() if word in "shallow_water_radial_dam_break").startswith("shallow")
    assert max(map(len, text.splitlines())) <= columns


def test_one_thing_is_not_counted_in_the_plural() -> None:
    assert [counted(1, name) for name in ("remark", "process", "axis")] == ["1 remark", "1 process", "1 axis"]
    assert [counted(2, name) for name in ("remark", "process", "axis")] == ["2 remarks", "2 processes", "2 axes"]
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "opframe").rglob("*.py")]
    assert not [text for text in sources if re.search(r"[a-z]\((e?s)\)", text)]


def test_a_loss_that_the_data_made_infinite_is_blamed_on_them(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = waves(6, 12, 16)
    data[2, 3, 4, 7] = 1e30
    write_prepared(experiment.parent / "one.h5", data)
    said = words_of(capsys, "run", experiment, "--set", "trainer.steps=100", "--set", "datasets.1.weight=1e-6", code=2)
    assert re.search(
        r"training diverged by step \d+: .*; one: trajectory 2 reaches 1e\+30 in frame 7, channel 'c0'", said
    )
    assert "exclude = [2]" in said
    assert "learning_rate" not in said
