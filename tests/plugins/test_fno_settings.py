"""What may be set on an FNO, what its presets are made for, and what is said of settings that cannot be."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import attrs
import pytest
import torch

from opframe.run.experiment import load_experiment
from opframe_fno import FNO
from opframe_registry import Catalog, ConfigError
from support import ROOT
from tests.plugins.test_fno import fields_of, inputs_of


def test_the_parts_are_the_whole_and_do_not_overlap() -> None:
    names = FNO(width=8, modes=3, normalize=True, classes=2).build(fields_of()).state_dict()
    found = [
        [part for part, patterns in FNO.parts.items() if any(fnmatchcase(name, pattern) for pattern in patterns)]
        for name in names
    ]
    assert all(len(parts) == 1 for parts in found)
    assert {parts[0] for parts in found} == FNO.parts.keys()


@pytest.mark.parametrize(
    ("size", "millions"), [("baseline", 0.93), ("tiny", 10), ("small", 30), ("medium", 150), ("mini", 0.6)]
)
def test_presets_have_the_numbers_of_weights_that_they_are_made_for(size: str, millions: float) -> None:
    with torch.device("meta"):
        network = FNO(size=size, **FNO.presets[size]).build(fields_of(4, (128, 128), history=10))
    counts = {name: weight.numel() for name, weight in network.named_parameters()}
    assert sum(counts.values()) / 1e6 == pytest.approx(millions, rel=0.03)
    if size == "baseline":
        complex_once = [count / 2 if name.startswith("spectral_convs") else count for name, count in counts.items()]
        assert sum(complex_once) / 1e6 == pytest.approx(0.5, abs=0.05)


def test_the_default_experiment_runs_with_another_type(catalog: Catalog) -> None:
    experiment = load_experiment(ROOT / "configs" / "dpot_pretrain.toml", catalog, ["backbone.type=fno"])
    assert experiment.backbone == FNO(size="mini", normalize=True, **FNO.presets["mini"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 30}, ("width = 30", "multiple of 4", "such as 32", "group_norm")),
        ({"depth": 0}, ("depth",)),
        ({"modes": ()}, ("modes",)),
        ({"modes": (4, 0)}, ("modes",)),
        ({"classes": -1}, ("classes",)),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below
        FNO(**settings)
    assert all(word in str(caught.value) for word in words), caught.value


def test_without_group_norm_any_width_will_do() -> None:
    network = FNO(width=7, depth=1, modes=3, group_norm=False).build(fields_of())
    assert network(inputs_of(fields_of())).field.shape == (2, 1, 2, 16, 12)


@pytest.mark.parametrize(
    ("modes", "grid", "words"),
    [
        ((9,), (16, 24), r"modes = \[9\] are too many for the grid 16×24; set modes to \[8\] or at most \[8, 13\]"),
        ((8, 14), (16, 24), r"modes = \[8, 14\] are too many for the grid 16×24"),
        ((18,), (33,), r"grid 33; set modes to \[17\]"),
        ((4, 4), (8, 8, 8), r"modes = \[4, 4\], but the grid 8×8×8 has 3 axes"),
        ((1,), (1, 8), "every axis needs two points"),
    ],
)
def test_modes_that_do_not_fit_the_grid_are_refused_with_those_that_do(
    modes: tuple[int, ...], grid: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        FNO(modes=modes).build(fields_of(grid=grid))
    if len(grid) == 2 and min(grid) > 1:
        FNO(width=4, depth=1, modes=(8, 13)).build(fields_of(grid=grid))


def test_fewer_classes_than_datasets_are_refused() -> None:
    fields = attrs.evolve(fields_of(), datasets=("one", "two", "three"))
    with pytest.raises(ConfigError, match=r"classes = 2, but the mixture has 3 datasets; set classes to 3"):
        FNO(modes=3, classes=2).build(fields)
    FNO(modes=3, classes=3).build(fields)
