"""Who may import whom. Plugins are found by their folders: a new one is held to the rules without being listed."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import permutations

import grimp
import pytest
from grimp import ImportGraph
from importlinter.cli import lint_imports

from support import ROOT

PLUGINS = sorted(path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py"))
CONTRACT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"][0]
FLOORS = [set(floor.split(" | ")) for floor in CONTRACT["layers"]]
"""The rooms of the engine, the highest floor first, which import-linter knows too."""


@pytest.fixture(scope="module")
def graph() -> ImportGraph:
    """All imports of the project, those for type checking alone left out."""
    packages = ("opframe", "opframe_registry", *PLUGINS)
    return grimp.build_graph(
        *packages, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )


def of_the_registry(graph: ImportGraph) -> list[str]:
    """The conformance kit imports torch, and the contract does not import the kit."""
    contract = deepcopy(graph)
    kit = {module for module in contract.modules if module.startswith("opframe_registry.testing")}
    others = {module for module in contract.modules if module.startswith("opframe_registry")} - kit
    found = [
        f"{importer} -> {imported}"
        for imported in kit
        for importer in contract.find_modules_that_directly_import(imported) & others
    ]
    found += chains(contract, "opframe_registry.testing", ["opframe", *PLUGINS])
    for module in kit:
        contract.remove_module(module)
    return found + list(chains(contract, "opframe_registry", ["opframe", "torch", "torchdata", *PLUGINS]))


def of_plugins_by_the_engine(graph: ImportGraph) -> list[str]:
    return list(chains(graph, "opframe", PLUGINS))


def of_plugins_by_each_other(graph: ImportGraph) -> list[str]:
    return [chain for one, other in permutations(PLUGINS, 2) for chain in chains(graph, one, [other])]


def upwards(graph: ImportGraph) -> list[str]:
    broken = graph.find_illegal_dependencies_for_layers(FLOORS, {"opframe"})
    routes = [route for dependency in broken for route in dependency.routes]
    return [" -> ".join((*sorted(route.heads), *route.middle, *sorted(route.tails))) for route in routes]


def chains(graph: ImportGraph, importer: str, others: Sequence[str]) -> Iterator[str]:
    """The imports that lead from one package to others, in one step or through further modules."""
    for other in set(others) & graph.modules:
        yield from (" -> ".join(chain) for chain in graph.find_shortest_chains(importer, other))


RULES = [
    (of_the_registry, "opframe_registry.values", "torch"),
    (of_plugins_by_the_engine, "opframe.run.assembly", PLUGINS[0]),
    (of_plugins_by_each_other, PLUGINS[0], PLUGINS[1]),
    (upwards, "opframe.layers", "opframe.cli.main"),
]


@pytest.mark.parametrize(("forbidden", "importer", "imported"), RULES)
def test_there_are_no_forbidden_imports(
    graph: ImportGraph, forbidden: Callable[[ImportGraph], list[str]], importer: str, imported: str
) -> None:
    assert forbidden(graph) == []
    wrong = deepcopy(graph)
    wrong.add_import(importer=importer, imported=imported)
    assert any(importer in chain and imported in chain for chain in forbidden(wrong)), "the rule sees nothing"


def test_every_module_of_the_engine_lies_in_a_room(graph: ImportGraph) -> None:
    there = {module.removeprefix("opframe.") for module in graph.find_children("opframe")}
    assert there - set().union(*FLOORS) == set(CONTRACT["exhaustive_ignores"])
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0
