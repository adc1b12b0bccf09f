"""Configs as an earlier edition shipped them are valid, and mean what they meant."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from opframe.config.defaults import completed
from opframe.config.settings import Experiment
from opframe.config.structure import make_converter
from opframe.run.experiment import load_experiment, placed
from opframe.tools.selection import load_selection
from opframe_registry import Catalog

MADE = Path(__file__).parents[1] / "made_before"
PARTS = {"paper/dpot", "paper/moepot"}  # others include them
TUNED = {"finetune_all": "dpot", "finetune_blocks": "dpot", "finetune_moe": "moepot"}  # their backbone is trained
NAMES = sorted(str(path.relative_to(MADE / "configs").with_suffix("")) for path in (MADE / "configs").rglob("*.toml"))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in PARTS])
def test_a_config_of_before_is_valid_and_holds_nothing_out(
    name: str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPFRAME_DATA", "/published")
    path = MADE / "configs" / f"{name}.toml"
    if name.startswith("datasets/"):
        selection = load_selection(path, catalog)
        assert all(dataset.validation is None for dataset in selection.datasets)
        return
    backbone = [f"backbone.type={TUNED[name]}"] if name in TUNED else []
    experiment = load_experiment(path, catalog, backbone)
    assert experiment.data.validation == 0
    assert all(dataset.validation is None for dataset in experiment.datasets)


@pytest.mark.parametrize("name", ["dpot_pretrain", "paper/dpot_tiny", "experiments/native_grids"])
def test_every_key_has_the_value_that_it_had(name: str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPFRAME_DATA", "/published")
    written = (MADE / "resolved" / f"{Path(name).name}.toml").read_text().replace("/made/before", str(MADE))
    then = placed(make_converter(catalog).structure(completed(tomllib.loads(written)), Experiment))
    assert load_experiment(MADE / "configs" / f"{name}.toml", catalog) == then
