"""The commands that look at data know all three splits, and what is held out."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import h5py
import pytest

from data_support import Command, command
from support import EXPERIMENT, waves, write_prepared

__all__ = ["command"]


@pytest.fixture
def three_splits(tmp_path: Path) -> Path:
    """The small experiment: `one` has three files, of `two` some trajectories are held out."""
    data = waves(9, 12, 16)
    data[5] = data[1]
    for name, part in (("train", data[:4]), ("validation", data[4:7]), ("test", data[7:])):
        write_prepared(tmp_path / f"{name}.h5", part)
    two = waves(10, 10, 16, channels=2) + 3
    two[3], two[8] = two[2], two[4]
    write_prepared(tmp_path / "two.h5", two)
    path = tmp_path / "experiment.toml"
    text = EXPERIMENT.replace('url = "one.h5"\ntest = 2\n', 'url = "{split}.h5"\nvalidation = 2\n')
    path.write_text(text.replace("batch_size = 4\n", "batch_size = 4\nvalidation = 2\n", 1))
    return path


def test_info_and_check_tell_what_is_there_for_validation(three_splits: Path, command: Command) -> None:
    info = command("data", "info", three_splits)
    assert info.returncode == 0, info.stderr
    one, two = info.stdout.split("two (prepared)")
    assert "rule (validation)" in one
    assert "validation" in one
    assert "held out" not in one
    assert "2 trajectories for validation: 2, 6" in two
    assert "6 trajectories of 10 frames" in two
    checked = command("check", three_splits)
    assert checked.returncode == 0, checked.stderr
    assert "one: validation by 2 trajectories of its validation split" in checked.stdout
    assert "two: validation by 2 of 8 training trajectories, held out: 2, 6" in checked.stdout


def test_data_that_are_trained_on_and_validated_by_are_bad(three_splits: Path, command: Command) -> None:
    done = command("data", "check", three_splits, "--jobs", 1, "--out", three_splits.parent / "out")
    assert done.returncode == 2
    found = {
        (part["dataset"], part["split"]): [item["what"] for item in part["findings"] if item["bad"]]
        for part in json.loads((three_splits.parent / "out" / "check.json").read_text())
    }
    assert found == {
        ("one", "train"): [],
        ("one", "validation"): ["the same as trajectory 1 of one (train): validation data that are trained on"],
        ("one", "test"): [],
        ("two", "train"): ["the same as trajectory 3 of two (train): validation data that are trained on"],
        ("two", "test"): ["the same as trajectory 4 of two (train): test data that are trained on"],
    }
    assert "[[datasets]] of one: exclude = [1]" in done.stdout
    assert "[[datasets]] of two: exclude = [2, 4]" in done.stdout


def test_packed_data_hold_out_what_the_others_did(three_splits: Path, command: Command) -> None:
    folder = three_splits.parent / "packed"
    done = command("data", "pack", three_splits, folder)
    assert done.returncode == 0, done.stderr
    counts = {}
    for path in sorted(folder.rglob("*.h5")):
        with h5py.File(path) as file:
            counts[f"{path.parent.name}/{path.stem}"] = len(file["data"])
    assert counts == {"one/test": 2, "one/train": 4, "one/validation": 2, "two/test": 2, "two/train": 8}
    tables = tomllib.loads(done.stdout[done.stdout.index("[[datasets]]") :])["datasets"]
    assert [table.get("validation") for table in tables] == [2, None]
    packed = three_splits.with_name("packed.toml")
    head, rest = three_splits.read_text().split("[[datasets]]", 1)[0], EXPERIMENT[EXPERIMENT.index("[sampler]") :]
    packed.write_text(head + done.stdout[done.stdout.index("[[datasets]]") :] + rest)
    checked = command("check", packed)
    assert "one: validation by 2 trajectories of its validation split" in checked.stdout, checked.stderr
    assert "two: validation by 2 of 8 training trajectories, held out: 2, 6" in checked.stdout
    again = command("data", "pack", three_splits, folder, "--set", "datasets.1.validation=3")
    assert again.stdout.count("was there already") == 5  # what is held out is no matter of the files
