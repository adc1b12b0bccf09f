"""Runs, weights and caches that an earlier edition wrote load, and mean the same."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from opframe import load_pretrained
from opframe.run.assembly import prepare_data
from opframe.run.experiment import load_experiment
from opframe.weights.location import WeightsError
from opframe.weights.pretrained import read_header
from opframe_registry import Catalog
from support import saved_state
from weights_support import Call, command_line

MADE = Path(__file__).parent / "made_before"
NAMES = ("plain", "normalised")


def ignored(what: str, done: int, total: int) -> None:
    """Nobody looks at the progress."""


@pytest.fixture
def opframe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line."""
    return command_line(monkeypatch, capsys)


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A copy of what was made before, as it would lie on a disk where it was made in this folder."""
    shutil.copytree(MADE, tmp_path, dirs_exist_ok=True)
    for path in (*tmp_path.rglob("*.toml"), *tmp_path.rglob("*.json")):
        path.write_text(path.read_text().replace("/made/before", str(tmp_path)))
    for run in (tmp_path / "runs").iterdir():
        shutil.unpack_archive(run / "checkpoints.zip", run)
    for path in (tmp_path / "data").iterdir():
        os.utime(path, (1.7e9, 1.7e9))
    return tmp_path


def scores(run: Path) -> dict[str, dict[str, float]]:
    """The model's two errors on each dataset, as the report of a run has them."""
    report: dict[str, Any] = json.loads((run / "report.json").read_text())
    return {
        item["title"]: {key: item["scores"]["model"][key] for key in ("step", "full")} for item in report["datasets"]
    }


def same(found: dict[str, dict[str, float]], name: str) -> bool:
    """Whether these are the scores that the run had when it was made, up to rounding."""
    made = scores(MADE / "runs" / name)
    assert found.keys() == made.keys()
    return all(found[title] == pytest.approx(made[title], rel=1e-4) for title in made)


def predictions(dataset: str, name: str) -> tuple[Tensor, Tensor]:
    """The frames that were given, and what was predicted."""
    made = load_file(MADE / "predictions.safetensors")
    return made[f"{dataset}.frames"], made[f"{dataset}.{name}"]


@pytest.mark.parametrize("name", NAMES)
def test_a_finished_run_is_resumed_and_reports_what_it_did(name: str, before: Path, opframe: Call) -> None:
    (before / "runs" / name / "report.json").unlink()
    done = opframe("run", before / f"{name}.toml", "--resume")
    assert done.code == 0, done.errors
    assert same(scores(before / "runs" / name), name)


def test_a_run_goes_on_from_an_old_checkpoint_to_the_same_weights(before: Path, opframe: Call) -> None:
    run = before / "runs" / "plain"
    made = saved_state(run, 8)["model"]
    shutil.rmtree(run / "checkpoints" / "step-00000008")
    done = opframe("run", before / "plain.toml", "--resume")
    assert done.code == 0, done.errors
    assert "step-00000004" in done.output
    (before / "runs" / "plain-8.pt").unlink()
    again = saved_state(run, 8)["model"]
    assert again.keys() == made.keys()
    assert all(torch.allclose(again[name], made[name], rtol=1e-4, atol=1e-6) for name in made)
    assert same(scores(run), "plain")


@pytest.mark.parametrize("folder", ["runs", "weights"])
@pytest.mark.parametrize("name", NAMES)
def test_old_weights_are_evaluated_with_the_same_numbers(folder: str, name: str, before: Path, opframe: Call) -> None:
    into = before / "evaluated"
    settings = ("--set", f"init.from={before / folder / name}", "--set", f"run.folder={into}")
    done = opframe("evaluate", before / f"{name}.toml", *settings)
    assert done.code == 0, done.errors
    assert same(scores(into), name)


@pytest.mark.parametrize("folder", ["runs", "weights"])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_begins_with_old_weights_whole(folder: str, name: str, before: Path, opframe: Call) -> None:
    into = before / "tuned"
    settings = ("--set", f"init.from={before / folder / name}", "--set", f"run.folder={into}")
    done = opframe("run", before / f"{name}.toml", "--stop-at", 1, *settings)
    assert done.code == 0, done.errors
    report = json.loads((into / "init.json").read_text())
    assert {entry["status"] for entry in report["tensors"]} == {"copied"}


def test_old_runs_are_compared(before: Path, opframe: Call) -> None:
    done = opframe("compare", *(before / "runs" / name for name in NAMES), "--out", before / "comparison")
    assert done.code == 0, done.errors
    table = (before / "comparison" / "comparison.md").read_text()
    for name in NAMES:
        for dataset in scores(MADE / "runs" / name).values():
            assert f"{dataset['full']:.4f}" in table


@pytest.mark.parametrize("place", ["runs/plain", "weights/plain", "weights/fno", "weights/moepot"])
@pytest.mark.parametrize("dataset", ["air", "flow"])
def test_old_weights_predict_the_same(place: str, dataset: str, before: Path) -> None:
    network = load_pretrained(before / place)
    frames, expected = predictions(dataset, Path(place).name)
    with torch.no_grad():
        assert torch.allclose(network(frames).field, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dataset", ["air", "flow"])
def test_an_old_normalised_run_predicts_in_the_units_of_the_data(dataset: str, before: Path, opframe: Call) -> None:
    """Their numbers are in the cache alone, and in a weights folder that is exported now."""
    run, out = before / "runs" / "normalised", before / "exported"
    done = opframe("weights", "export", run, out)
    assert done.code == 0, done.errors
    assert "  flow: u 1.0842e-19 ± 0.353553, v 2.9 ± 0.0707107\n" in done.output
    frames, expected = predictions(dataset, "normalised")
    for place in (run, out):
        with torch.no_grad():
            assert torch.allclose(load_pretrained(place, dataset=dataset)(frames).field, expected, rtol=1e-4, atol=1e-5)
        with pytest.raises(WeightsError, match=r"each normalised by its own numbers: air, flow; say .*='air'"):
            load_pretrained(place)(frames)


def test_statistics_are_computed_to_the_digits_that_they_had(before: Path, catalog: Catalog) -> None:
    """What is computed anew does not differ from what other runs of the same data were trained with."""
    made = {path.name: json.loads(path.read_text()) for path in (before / "cache" / "statistics").iterdir()}
    shutil.rmtree(before / "cache")
    prepare_data(load_experiment(before / "normalised.toml", catalog, [f"data.cache={before / 'cache'}"]), ignored)
    again = [json.loads(path.read_text()) for path in (before / "cache" / "statistics").iterdir()]
    numbers = [{name: array["values"] for name, array in record["state"].items()} for record in again]
    assert sorted(map(repr, numbers)) == sorted(
        repr({name: record[name] for name in ("mean", "deviation")}) for record in made.values()
    )


def test_an_old_weights_folder_asks_for_the_numbers_that_it_does_not_have(before: Path) -> None:
    folder = before / "weights" / "normalised"
    with pytest.raises(WeightsError, match=r"normalised data, but their mean and deviation are not kept with it"):
        load_pretrained(folder, dataset="air")
    frames, expected = predictions("air", "normalised")
    with h5py.File(before / "data" / "air.h5") as file:
        known = torch.from_numpy(file["data"][:4]).permute(0, 3, 4, 1, 2)
    with torch.no_grad():
        field = load_pretrained(folder, statistics_of=known)(frames).field
    assert torch.allclose(field, expected, rtol=1e-4, atol=1e-5)


def test_an_old_run_whose_numbers_are_lost_or_in_doubt_says_so_until_it_is_resumed(
    before: Path, opframe: Call, catalog: Catalog
) -> None:
    run = before / "runs" / "normalised"
    (path,) = (before / "cache").rglob("*afeb9e20e65f68ed.json")
    path.with_name("prepared-of-other-files.json").write_text(path.read_text().replace("0.35355", "0.45355"))
    refused = opframe("weights", "export", run, before / "out")
    assert (refused.code, "'opframe run CONFIG --resume' writes them into its model.toml" in refused.errors) == (
        2,
        True,
    )
    assert not (before / "out").exists()
    shutil.rmtree(before / "cache")
    assert read_header(run, catalog).datasets == ()
    assert opframe("run", before / "normalised.toml", "--resume").code == 0
    shutil.rmtree(before / "cache")
    frames, expected = predictions("flow", "normalised")
    with torch.no_grad():
        field = load_pretrained(run, dataset="flow")(frames).field
    assert torch.allclose(field, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "normalised", "fno", "moepot"])
def test_old_weights_are_shown(name: str, before: Path, opframe: Call) -> None:
    done = opframe("weights", "show", before / "weights" / name)
    assert done.code == 0, done.errors
    assert f"normalization of the data: {'dataset' if name == 'normalised' else 'none'}" in done.output
