"""The configs that come with opframe are valid, and the published recipes are the published ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from opframe.run.assembly import Sources, build_backbone, build_optimizer, initialise
from opframe.run.experiment import load_experiment
from opframe.tools.selection import load_selection
from opframe.weights.pretrained import Header, Origin, write_folder
from opframe_registry import Catalog, Fields
from support import ROOT

PARTS = {"dpot", "moepot", *(path.stem for path in (ROOT / "configs" / "datasets").iterdir())}  # others include them
FINE_TUNING = {"finetune_all": "dpot", "finetune_blocks": "dpot", "finetune_moe": "moepot"}  # their backbone is trained
ALL = sorted(path for path in (ROOT / "configs").rglob("*.toml") if path.stem not in {*PARTS, *FINE_TUNING})
MILLIONS = {"tiny": 7.5, "small": 30.8, "medium": 122, "large": 509, "huge": 1030}


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_every_config_is_valid(catalog: Catalog, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPFRAME_DATA", "s3://bucket/prepared")
    experiment = load_experiment(path, catalog)
    assert experiment.title
    assert Path(experiment.run.folder).resolve().is_relative_to(ROOT / "runs")


@pytest.mark.parametrize("size", MILLIONS)
def test_published_recipes_have_the_published_sizes_and_mixture(
    catalog: Catalog, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPFRAME_DATA", "/data")
    experiment = load_experiment(ROOT / "configs" / "paper" / f"dpot_{size}.toml", catalog)
    assert [dataset.weight for dataset in experiment.datasets] == [8, 2, 8, 1, 1, 1, 1, 20, 20, 1, 3, 1]
    sizes = [dataset.train for dataset in experiment.datasets]
    assert sizes == [1000, 9800, 1000, 9000, 9000, 9000, 9000, 900, 900, 6500, 3100, 9000]
    assert [dataset.rollout for dataset in experiment.datasets] == [10, 20, 20, 11, 11, 11, 11, 91, 91, 4, 46, 10]
    assert experiment.datasets[0].url == "/data/fno/NavierStokes_V1e-5_N1200_T20.mat"
    assert experiment.data.grid == (128, 128)
    assert (experiment.data.history, experiment.data.batch_size) == (10, 160)
    assert experiment.objective.noise == (5e-5 if size in ("large", "huge") else 5e-4)
    assert experiment.optimizer.betas == (0.9, 0.9)
    summed = 20  # the published loss is a sum over the samples of a device, ours the mean
    assert experiment.optimizer.weight_decay * summed == pytest.approx(1e-6)
    assert experiment.trainer.clip * summed == pytest.approx(1e4)
    with torch.device("meta"):
        fields = Fields(channels=("a", "b", "c", "d"), grid=(128, 128), history=10)
        backbone = build_backbone(experiment, fields)
    width, classes = experiment.backbone.width, 12
    head = 2 * (width**2 + width) + width * classes + classes  # of the classification head, which is counted in
    weights = head + sum(weight.numel() for weight in backbone.parameters())
    assert weights / 1e6 == pytest.approx(MILLIONS[size], rel=0.02)


@pytest.mark.parametrize(("size", "batch", "millions"), [("tiny", 40, 30), ("small", 40, 166), ("medium", 160, 489)])
def test_the_recipes_of_experts_are_the_published_ones(
    catalog: Catalog, size: str, batch: int, millions: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPFRAME_DATA", "/data")
    experiment = load_experiment(ROOT / "configs" / "paper" / f"moepot_{size}.toml", catalog)
    labels = ["ns2d_fno_1e-5", "ns2d_fno_1e-3", "ns2d_pdb_M1e-1_eta1e-2_zeta1e-2", "swe_pdb", "dr_pdb", "cfdbench"]
    assert [dataset.title for dataset in experiment.datasets] == labels
    assert [dataset.train for dataset in experiment.datasets] == [1000, 1000, 9000, 900, 900, 9000]
    assert {dataset.weight for dataset in experiment.datasets} == {1.0}
    windows = sum(dataset.train or 0 for dataset in experiment.datasets)
    assert (experiment.data.batch_size, experiment.trainer.steps) == (batch, 1000 * windows / batch)
    summed = 20  # the published loss is a sum over the samples of a device, ours the mean
    assert experiment.objective.noise == 5e-4
    assert experiment.objective.penalty_weight * summed == pytest.approx(0.1)
    assert experiment.optimizer.weight_decay * summed == pytest.approx(1e-6)
    with torch.device("meta"):
        fields = Fields(channels=("a", "b", "c", "d"), grid=(128, 128), history=10)
        backbone = build_backbone(experiment, fields)
    assert sum(weight.numel() for weight in backbone.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


def test_converted_data_make_the_same_mixture(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPFRAME_DATA", "/data")
    folder = ROOT / "configs" / "datasets"
    native, prepared = (load_selection(folder / f"dpot_mixture{kind}.toml", catalog) for kind in ("", "_prepared"))
    for one, other in zip(native.datasets, prepared.datasets, strict=True):
        assert (other.name, other.url) == ("prepared", f"/data/{one.title}/{{split}}")
        for key in ("title", "weight", "train", "test", "rollout"):
            assert getattr(one, key) == getattr(other, key)


@pytest.mark.parametrize(("name", "backbone"), FINE_TUNING.items())
def test_fine_tuning_fits_what_the_default_pre_training_leaves(
    catalog: Catalog, tmp_path: Path, name: str, backbone: str
) -> None:
    pretraining = load_experiment(ROOT / "configs" / f"{backbone}_pretrain.toml", catalog)
    fields = Fields(channels=("vorticity/u", "v"), grid=pretraining.data.grid, history=pretraining.data.history)
    header = Header(backbone=pretraining.backbone, fields=fields, origin=Origin(source="a test"))
    write_folder(header, build_backbone(pretraining, fields).state_dict(), tmp_path / "weights")
    experiment = load_experiment(
        ROOT / "configs" / f"{name}.toml", catalog, [f"init.from={tmp_path / 'weights'}", "run.seed=1"]
    )
    assert experiment.backbone.name == backbone
    assert (len(fields.channels), fields.grid, fields.history) == (
        experiment.data.channels,
        experiment.data.grid,
        experiment.data.history,
    )
    network = build_backbone(experiment, fields)
    sources = Sources(train=(), validation=(), test=(), zero_shot=(), fields=fields)
    transferred = initialise(experiment, network, sources, catalog)
    assert transferred is not None
    fresh = {entry.part for entry in transferred.entries if entry.status == "fresh"}
    assert fresh == ({"embedding", "time_aggregation", "head", "normalization"} if "blocks" in name else set())
    groups = build_optimizer(experiment, network).param_groups
    assert [group["lr"] for group in groups] == ([1e-4, 1e-3] if "blocks" in name else [5e-4])
    frozen = {name.split(".")[3] for name, weight in network.named_parameters() if not weight.requires_grad}
    assert frozen == ({"gating", "feature_extractor"} if backbone == "moepot" else set())


def test_the_first_experiments_differ_from_the_default_in_what_they_are_about(catalog: Catalog) -> None:
    folder = ROOT / "configs" / "experiments"
    assert len(load_experiment(folder / "one_dataset.toml", catalog).datasets) == 1
    for noise in ("1e-5", "1e-4", "1e-3"):
        assert load_experiment(folder / f"noise_{noise}.toml", catalog).objective.noise == float(noise)
    assert [load_experiment(folder / f"heads_{count}.toml", catalog).backbone.heads for count in (1, 4)] == [1, 4]
