"""Experiment files: strict, all mistakes at once, in the words of the person who wrote them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opframe.config.schema import json_schema
from opframe.config.settings import Experiment
from opframe.run.experiment import load_experiment, to_toml
from opframe_registry import Catalog, ConfigError
from support import EXPERIMENT


def load(catalog: Catalog, path: Path, *overrides: str) -> Experiment:
    return load_experiment(path, catalog, overrides)


def message(catalog: Catalog, path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(catalog, path, *overrides)
    return str(error.value)


def test_all_mistakes_are_reported_at_once_with_their_places(catalog: Catalog, experiment: Path) -> None:
    text = EXPERIMENT.replace("width = 32", 'widht = 32\ndepth = "4"\n').replace("depth = 1\n", "")
    text = (
        text.replace('"relative_l2"', '"relativ_l2"')
        .replace('url = "two.h5"', "")
        .replace("weight = 2.0", "weight = -2.0")
    )
    text = text.replace("steps = 8", "steps = 8.5").replace('device = "cpu"', 'device = "gpu"\ncompile = "false"')
    experiment.write_text(text.replace("grid = [16, 16]", "grid = [16, true]"))
    lines = message(catalog, experiment).splitlines()
    assert lines[0] == f"{experiment} is not a valid experiment:"
    for expected in (
        "  data.grid[1]: expected int, got True",
        "  datasets[1].url: required, but missing",
        "  datasets[1]: 'weight' must be > 0.0: -2.0",
        "  backbone: unknown key 'widht'; did you mean 'width'?",
        "  backbone.depth: expected int, got '4'",
        "  trainer.steps: expected int, got 8.5",
        "  trainer.device: expected one of 'auto', 'cpu', 'cuda', got 'gpu'; did you mean 'cpu'?",
        "  trainer.compile: expected bool, got 'false'",
    ):
        assert expected in lines
    assert any("objective: unknown objective 'relativ_l2'; did you mean 'relative_l2'?" in line for line in lines)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("backbone", "expected key=value"),
        ("datasets.7.weight=1", "'7' is not an index between 0 and 1"),
        ("run.folder.x=1", "'x' has nothing to be set in"),
        ("backbone=3", "backbone: expected a table, got 3"),
        ("datasets.0.label=two", "two datasets are called 'two'"),
        ("run.sed=1", "run: unknown key 'sed'; did you mean 'seed'?"),
        ("backbone.size=tinny", "backbone.size: unknown preset 'tinny'; did you mean 'tiny'?"),
        ("backbone.heads=3", "heads"),
    ],
)
def test_a_wrong_override_is_explained(catalog: Catalog, experiment: Path, override: str, expected: str) -> None:
    assert expected in message(catalog, experiment, override)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("s3://key:hush@bucket/one.h5", False),
        ("https://host/one.h5?versionId=3&X-Amz-Signature=hush", False),
        ("https://host/one.h5?sv=2024&sig=hush", False),
        ("https://host/one.h5?versionId=3", True),
        ("hf://datasets/someone/some@hush/one.h5", True),
    ],
)
def test_credentials_do_not_get_into_the_config_that_a_run_keeps(
    catalog: Catalog, experiment: Path, monkeypatch: pytest.MonkeyPatch, url: str, allowed: bool
) -> None:
    monkeypatch.setenv("PLACE", url)
    if allowed:
        assert load(catalog, experiment, "datasets.0.url=${PLACE}").datasets[0].url == url  # type: ignore[attr-defined]
        return
    said = message(catalog, experiment, "datasets.0.url=${PLACE}")
    assert "datasets[0].url: the URL holds a password or signature" in said
    assert "hush" not in said


def test_overrides_reach_into_tables_and_lists(catalog: Catalog, experiment: Path) -> None:
    loaded = load(catalog, experiment, "datasets[1].weight=3", "data.grid=[8, 8]", "title=bare words", "run.seed=7")
    assert (loaded.datasets[1].weight, loaded.data.grid, loaded.title, loaded.run.seed) == (
        3.0,
        (8, 8),
        "bare words",
        7,
    )


def test_a_changed_type_keeps_only_the_keys_that_all_of_its_kind_have(catalog: Catalog, experiment: Path) -> None:
    assert load(catalog, experiment, "schedule.warmup=0.1", "schedule.type=constant").schedule.name == "constant"
    adamw = load(catalog, experiment, "optimizer.learning_rate=0.5", "optimizer.epsilon=1", "optimizer.type=adamw")
    assert (adamw.optimizer.name, adamw.optimizer.learning_rate, adamw.optimizer.epsilon) == ("adamw", 0.5, 1e-8)
    experiment.with_name("over.toml").write_text('include = "experiment.toml"\n[objective]\ntype = "relative_l2"\n')
    assert load(catalog, experiment.with_name("over.toml"), "sampler.type=proportional").sampler.name == "proportional"


def test_presets_are_overridden_by_single_keys_wherever_they_stand(catalog: Catalog, experiment: Path) -> None:
    experiment.write_text(EXPERIMENT.replace("width = 32\ndepth = 1\nheads = 2\npatch = 4", 'size = "tiny"\ndepth = 2'))
    backbone = load(catalog, experiment, "backbone.heads=8").backbone
    assert (backbone.width, backbone.depth, backbone.heads) == (512, 2, 8)


def test_a_relative_path_belongs_to_the_file_it_is_written_in(
    catalog: Catalog, experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (experiment.parent / "sub").mkdir()
    above = experiment.parent / "sub" / "above.toml"
    above.write_text('include = "../experiment.toml"\n[run]\nfolder = "here"\n')
    monkeypatch.chdir("/")
    loaded = load(catalog, above, "data.cache=cache")
    assert Path(loaded.run.folder) == above.parent / "here"
    assert Path(loaded.datasets[0].url).resolve() == experiment.parent / "one.h5"
    assert loaded.data.cache == "/cache"
    assert load(catalog, above, "datasets.0.url=s3://bucket/x.h5").datasets[0].url == "s3://bucket/x.h5"


def test_includes_that_go_round_or_are_missing_are_named(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('include = "b.toml"')
    (tmp_path / "b.toml").write_text('include = "a.toml"')
    assert "includes itself" in message(catalog, tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text('include = "c.toml"')
    assert f"c.toml: no such file, included by {tmp_path / 'b.toml'}" in message(catalog, tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text("x = ")
    assert "b.toml: not valid TOML" in message(catalog, tmp_path / "a.toml")


def test_environment_variables_are_filled_in_and_missing_ones_named(
    catalog: Catalog, experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment.write_text(EXPERIMENT.replace('"one.h5"', '"${WHERE}/one.h5"'))
    monkeypatch.delenv("WHERE", raising=False)
    assert "datasets[0].url: the environment variable WHERE is not set" in message(catalog, experiment)
    monkeypatch.setenv("WHERE", "/mnt/pde")
    assert load(catalog, experiment).datasets[0].url == "/mnt/pde/one.h5"


def test_the_resolved_experiment_reads_back_as_the_same_one(catalog: Catalog, experiment: Path, tmp_path: Path) -> None:
    loaded = load(catalog, experiment, "backbone.size=mini", "data.cache=cache")
    elsewhere = tmp_path / "elsewhere" / "config.toml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(to_toml(loaded))
    assert load(catalog, elsewhere) == loaded


def test_the_schema_knows_every_component_and_its_keys(catalog: Catalog) -> None:
    schema = json.loads(json.dumps(json_schema(catalog)))
    assert set(schema["properties"]) >= {"include", "run", "data", "datasets", "backbone", "trainer"}
    dpot = next(item for item in schema["$defs"]["backbone"]["oneOf"] if item["properties"]["type"]["const"] == "dpot")
    assert dpot["properties"]["width"]["type"] == "integer"
    assert "tiny" in dpot["properties"]["size"]["enum"]
