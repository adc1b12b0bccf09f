"""Parameters are counted for every size of a backbone, without making any."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from io import StringIO
from typing import Any, ClassVar, final

import attrs
import pytest
from attrs import frozen
from rich.console import Console
from torch import nn

from conftest import Command
from opframe.weights.model_size import EXAMPLE, model_size, size_table, variants
from opframe_fno import FNO
from opframe_pot import DPOT, MoEPOT
from opframe_registry import Backbone, ConfigError, Fields
from opframe_unet import UNet


@final
@frozen(kw_only=True)
class Line(Backbone):
    """A backbone for one axis of space, which has no default width."""

    name: ClassVar[str] = "line"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"wide": {"width": 8}, "incomplete": {}}
    width: int

    def build(self, fields: Fields) -> nn.Module:
        """Make one layer."""
        if len(fields.grid) != 1:
            raise ConfigError("[backbone] line works on 1-D grids")
        return nn.Linear(fields.grid[0], self.width)


@pytest.mark.parametrize("class_", [DPOT, MoEPOT, FNO, UNet, Line])
def test_a_size_that_is_no_preset_is_refused_by_every_backbone(class_: type[Backbone]) -> None:
    needed = class_.presets.get("wide", {})
    with pytest.raises(ValueError, match=rf"size = 'giant' is not a preset; presets: {next(iter(class_.presets))}, "):
        class_(size="giant", **needed)


def test_the_count_is_that_of_the_network() -> None:
    fields = Fields(channels=("u", "v"), grid=(16, 24), history=3, horizon=2)
    backbone = MoEPOT(width=16, depth=2, heads=2, patch=4, routed_experts=4, chosen_experts=1)
    total = sum(weight.numel() for weight in backbone.build(fields).parameters())
    size = model_size(backbone, fields)
    assert size.total == total
    assert size.activated == total - 2 * 3 * (16 * 16 + 16)  # in two blocks, three of the four experts are not chosen


def test_a_billion_parameters_are_counted_without_memory_for_them() -> None:
    model_size(variants(DPOT)["mini"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert model_size(variants(DPOT)["huge"]).total > 1e9
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100e3  # kilobytes; the weights are 4e6


def test_defaults_and_presets_are_counted_as_far_as_they_are_complete() -> None:
    assert list(variants(DPOT)) == ["defaults", *DPOT.presets]
    assert list(variants(Line)) == ["wide"]
    assert attrs.evolve(variants(DPOT)["tiny"], size=None) == variants(DPOT)["defaults"]


def test_what_cannot_be_counted_has_the_reason() -> None:
    console = Console(width=80, file=StringIO())
    with console.capture() as captured:
        console.print(size_table(Line))
    assert "works on 1-D grids" in captured.get()
    assert model_size(Line(width=8), attrs.evolve(EXAMPLE, grid=(16,))).total == 8 * 17


@pytest.mark.parametrize(("name", "activated"), [("dpot", "1,022,664,807"), ("moepot", "17,030,503")])
def test_show_prints_the_parameters_in_all_and_activated(opframe: Command, name: str, activated: str) -> None:
    shown = opframe("show", name)
    assert shown.returncode == 0, shown.stderr
    assert "parameters for 10 frames of 4 channels on 128×128, 1 frame out" in shown.stdout
    assert activated in shown.stdout


def test_show_prints_the_parts_of_a_backbone_and_no_parameters_of_other_kinds(opframe: Command) -> None:
    assert "parts, for [init] and [[parameters]]: embedding, blocks, head" in opframe("show", "unet").stdout
    assert "parameters" not in opframe("show", "adam").stdout
