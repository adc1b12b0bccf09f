"""Components are built in one place, which says in the plugin's name what a plugin does wrong."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

import benchmarks
import opframe
from opframe.config import building
from opframe.tools.recognition import recognise
from opframe.weights.published import File
from opframe.weights.published import recognise as recognise_weights
from opframe.weights.transfer import transfer
from opframe_registry import (
    Adapted,
    Backbone,
    Catalog,
    Change,
    Dataset,
    Fields,
    Plugin,
    PluginError,
    Published,
    Split,
    Trajectories,
)
from weights_support import FIELDS, small_weights


def test_only_one_module_of_engine_and_benchmarks_calls_build() -> None:
    paths = [path for folder in (opframe, benchmarks) for path in Path(str(folder.__file__)).parent.rglob("*.py")]
    callers = {
        path
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "build"
    }
    assert len(paths) > 50
    assert {path.name for path in callers} == {"building.py"}


@final
@frozen(kw_only=True)
class Broken(Backbone):
    """Fails at everything but its construction."""

    name: ClassVar[str] = "broken"

    def build(self, fields: Fields) -> nn.Module:
        return nn.Linear(fields.history, 0 // 0)

    def adapt(self, change: Change) -> Adapted | None:
        raise KeyError(change.name)

    @classmethod
    def from_published(cls, arguments: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Published | None:
        raise IndexError("no layer 3")


@final
@frozen(kw_only=True)
class Blind(Dataset):
    """Fails at looking at a path."""

    name: ClassVar[str] = "blind"

    def build(self, split: Split, cache: Path) -> Trajectories:
        raise NotImplementedError

    @classmethod
    def recognise(cls, url: str, contents: Mapping[str, tuple[int, ...]]) -> Mapping[str, Any] | None:
        raise UnicodeError("what is this")


def catalog_of(component: type) -> Catalog:
    return Catalog((Plugin(name="mine", distribution="mine", components=(component,)),))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: building.build_network(Broken(), FIELDS), "backbone 'broken' .*: build raised ZeroDivisionError"),
        (lambda: building.build_shapes(Broken(), FIELDS), "backbone 'broken' .*: build raised ZeroDivisionError"),
        (
            lambda: transfer(Broken(), small_network(), FIELDS, small_weights()),
            r"backbone 'broken' .*: adapt raised KeyError: 'pos_embed'",
        ),
        (
            lambda: recognise_weights(
                File(source="a.pth", sha256="", arguments={}, weights={"w": torch.ones(1)}, others=()),
                catalog_of(Broken),
            ),
            "backbone 'broken' .*: from_published raised IndexError: no layer 3",
        ),
        (
            lambda: recognise("a.npy", {"a": (1, 2)}, catalog_of(Blind)),
            "dataset 'blind' .*: recognise raised UnicodeError: what is this",
        ),
    ],
    ids=["build", "build on the meta device", "adapt", "from_published", "recognise"],
)
def test_what_a_plugin_does_wrong_is_said_with_its_name_and_the_line(call: Callable[[], object], words: str) -> None:
    with pytest.raises(PluginError, match=rf"{words}.*\({__file__}, line \d+\)"):
        call()


def small_network() -> nn.Module:
    return building.build_network(small_weights().header.backbone, FIELDS)
