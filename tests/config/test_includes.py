"""What several included files say together, and how one dataset among those that were included is changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from opframe.config.toml import load_tables
from opframe_registry import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files with a dataset each, of which the second has two more things to say."""
    (tmp_path / "a.toml").write_text('title = "a"\n[[datasets]]\ntype = "prepared"\nlabel = "one"\nurl = "one.h5"\n')
    (tmp_path / "b.toml").write_text(
        'title = "b"\nbetas = [1, 2]\n[[datasets]]\ntype = "prepared"\nlabel = "two"\nurl = "two.h5"\ntest = 2\n'
        '[[files]]\nlabel = "two"\n'
    )
    return tmp_path


def load(folder: Path, text: str, *overrides: str) -> dict[str, object]:
    path = folder / "experiment.toml"
    path.write_text(text)
    return load_tables(path, overrides)


def test_arrays_of_tables_of_several_files_follow_each_other(folder: Path) -> None:
    tables = load(folder, 'include = ["a.toml", "b.toml"]\nbetas = [3]')
    assert [dataset["label"] for dataset in tables["datasets"]] == ["one", "two"]
    assert (tables["title"], tables["betas"], len(tables["files"])) == ("b", [3], 1)
    backwards = load(folder, 'include = ["b.toml", "a.toml"]')
    assert [dataset["label"] for dataset in backwards["datasets"]] == ["two", "one"]


def test_an_array_of_the_including_file_replaces_those_that_were_included(folder: Path) -> None:
    tables = load(folder, 'include = ["a.toml", "b.toml"]\nfiles = []\n[[datasets]]\ntype = "array"\n')
    assert tables["datasets"] == [{"type": "array"}]
    assert tables["files"] == []


def test_a_table_changes_the_datasets_with_its_labels_alone(folder: Path) -> None:
    tables = load(folder, 'include = ["a.toml", "b.toml"]\n[datasets]\ntwo.weight = 8.0\n[datasets.one]\ntrain = 3\n')
    one, two = tables["datasets"]
    assert one == {"type": "prepared", "label": "one", "url": "one.h5", "train": 3}
    assert two == {"type": "prepared", "label": "two", "url": "two.h5", "test": 2, "weight": 8.0}


def test_another_type_keeps_only_what_all_datasets_have(folder: Path) -> None:
    tables = load(folder, 'include = ["a.toml", "b.toml"]\n[datasets.two]\ntype = "pdebench"\n')
    assert tables["datasets"][1] == {"type": "pdebench", "label": "two", "test": 2}


def test_labels_stand_for_numbers_in_overrides(folder: Path) -> None:
    tables = load(folder, 'include = ["a.toml", "b.toml"]', "datasets.two.test=5", "datasets.0.test=4")
    assert [dataset["test"] for dataset in tables["datasets"]] == [4, 5]
    with pytest.raises(ConfigError, match="'three' is not an index between 0 and 1, nor one of the labels one, two"):
        load(folder, 'include = ["a.toml", "b.toml"]', "datasets.three.test=5")


def test_labels_that_no_dataset_or_several_have_are_errors(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"experiment.toml: datasets.three: expected a label out of one, two"):
        load(folder, 'include = ["a.toml", "b.toml"]\n[datasets]\nthree.weight = 2.0')
    with pytest.raises(ConfigError, match=r"datasets.one: expected a label out of one, one"):
        load(folder, 'include = ["a.toml", "a.toml"]\n[datasets]\none.weight = 2.0')
