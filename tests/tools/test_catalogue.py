"""The catalogue: its entries fit together, and its recipe trains on published layouts, wherever they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from attrs import evolve
from rich.console import Console

from catalogue_support import FRAMES, GRID, served, values, write_all
from layout_support import opened
from opframe.config.settings import Experiment
from opframe.mixture.loading import batches, make_loader
from opframe.run import assembly, job
from opframe.run.experiment import load_experiment
from opframe.tools.selection import load_selection
from opframe_registry import Batch, Catalog
from servers import Bucket
from support import ROOT, assert_same_training

ENTRIES = ROOT / "configs" / "datasets"
RECIPE = ROOT / "configs" / "paper" / "dpot_tiny.toml"
STEPS = 4
SMALL = [
    "data.grid=[16, 16]",
    "data.history=3",
    "data.batch_size=30",
    "data.workers=2",
    "backbone.width=16",
    "backbone.depth=1",
    "backbone.heads=2",
    "backbone.patch=4",
    "backbone.modes=4",
    "backbone.output_width=8",
    f"trainer.steps={STEPS}",
    "trainer.evaluate_every=4",
    "trainer.checkpoint_every=4",
    "trainer.device=cpu",
    "evaluation.figures=false",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 12 datasets, small."""
    return write_all(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def web(data: Path) -> Iterator[str]:
    with served(data) as address:
        yield address


def recipe(catalog: Catalog, root: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Experiment:
    """DPOT-Tiny's recipe on data below `root`, small, and with every dataset as likely as any other."""
    monkeypatch.setenv("OPFRAME_DATA", root)
    labels = [dataset.title for dataset in load_experiment(RECIPE, catalog).datasets]
    keys = {"train": 4, "test": 1, "rollout": 2, "weight": 1.0}
    sizes = [f"datasets.{label}.{key}={value}" for label in labels for key, value in keys.items()]
    return load_experiment(RECIPE, catalog, [*SMALL, *sizes, f"run.folder={folder}"])


def all_batches(experiment: Experiment) -> list[Batch]:
    sources = assembly.open_sources(experiment)
    order = assembly.build_order(experiment, sources.train)
    plan = assembly.training_plan(experiment, order, 0, 1, range(STEPS))
    windows = assembly.training_windows(experiment, sources)
    loader = make_loader(windows, plan, workers=2, pin=False)
    return [evolve(batch, inputs=batch.inputs.clone(), targets=batch.targets.clone()) for batch in batches(loader)]


def train(experiment: Experiment, catalog: Catalog) -> Path:
    request = job.Request(experiment=experiment, catalog=catalog, resume=False, stop_at=None, how_to_continue="")
    job.run(request, Console(quiet=True))
    return Path(experiment.run.folder)


def test_validation_files_of_pdearena_are_trained_on_after_those_for_training(catalog: Catalog, data: Path) -> None:
    folder = data / "pdearena" / "NavierStokes-2D-conditoned"
    both = opened(catalog, "pdearena", folder, "train", train_split="train+valid")
    assert both.metadata.trajectories == 6
    assert both.metadata.split == "all 6 trajectories of the files for train, published as 'train and valid'"
    for number, (seed, within) in enumerate([(296423, 0), (296423, 1), (415574, 0), (415574, 1), (142203, 0)]):
        expected = values(f"{folder.name} {seed} vx", 2, FRAMES, GRID, GRID)[within]
        assert np.array_equal(both.read(number, 0, FRAMES)[:, 1], expected)
    assert opened(catalog, "pdearena", folder, "train").metadata.trajectories == 4
    with pytest.raises(ValueError, match="would evaluate on what"):
        opened(catalog, "pdearena", folder, train_split="train+valid", test_split="valid")


def test_the_recipe_trains_alike_from_a_disk_a_bucket_and_a_web_server(
    catalog: Catalog, data: Path, web: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fsspec.filesystem("s3").put(f"{data}/", "data/published/", recursive=True)
    roots = {"disk": str(data), "bucket": "s3://data/published", "web": web}
    experiments = {name: recipe(catalog, root, monkeypatch, tmp_path / "runs" / name) for name, root in roots.items()}
    read = {name: all_batches(experiment) for name, experiment in experiments.items()}
    drawn = torch.cat([batch.dataset for batch in read["disk"]])
    assert set(drawn.tolist()) == set(range(12))
    for name in ("bucket", "web"):
        for batch, other in zip(read["disk"], read[name], strict=True):
            assert torch.equal(batch.inputs, other.inputs), name
            assert torch.equal(batch.targets, other.targets), name
            assert torch.equal(batch.dataset, other.dataset), name
    runs = {name: train(experiment, catalog) for name, experiment in experiments.items()}
    reports = {name: (run / "report.json").read_text() for name, run in runs.items()}
    for name in ("bucket", "web"):
        assert_same_training(runs["disk"], runs[name], STEPS)
        assert reports[name] == reports["disk"], name


def test_a_mixture_of_ones_own_is_made_as_the_documentation_says(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    mixture, file = re.findall(r"```toml\n(.*?)```", page.partition("## The catalogue")[2], re.DOTALL)
    for name in ("dr_pdb.toml", "swe_pdb.toml"):
        (tmp_path / name).symlink_to(ENTRIES / name)
    monkeypatch.setenv("OPFRAME_DATA", "/data")
    (tmp_path / "own.toml").write_text(mixture)
    own = load_selection(tmp_path / "own.toml", catalog)
    assert [(dataset.title, dataset.weight) for dataset in own.datasets] == [("dr_pdb", 1.0), ("swe_pdb", 2.0)]
    (tmp_path / "files.toml").write_text('include = "dr_pdb.toml"\n' + file)
    assert load_selection(tmp_path / "files.toml", catalog).files == own.files[1:]


@pytest.mark.parametrize("path", sorted(ENTRIES.glob("*_*.toml")), ids=lambda path: path.stem)
def test_an_entry_says_of_every_dataset_where_it_comes_from(
    catalog: Catalog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPFRAME_DATA", "/data")
    selection = load_selection(path, catalog)
    if "mixture" not in path.stem:
        assert [dataset.title for dataset in selection.datasets] == [path.stem]
        assert all(None not in (dataset.train, dataset.test, dataset.rollout) for dataset in selection.datasets)
    if "prepared" in path.stem:
        assert not selection.files
        return
    for dataset in selection.datasets:
        files = [file for file in selection.files if file.label == dataset.title]
        assert files
        assert all(file.path.startswith(dataset.url) for file in files)
    assert len(selection.files) == len({file.path for file in selection.files})
    for file in selection.files:
        assert file.homepage.startswith("https://")
        assert file.path.startswith("/data/")
        assert file.url is None or file.url.startswith("https://")
        assert file.md5 is None or len(bytes.fromhex(file.md5)) == 16
