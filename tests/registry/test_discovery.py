"""Plugins are found as they are installed, through real distribution metadata; faults stay with the faulty one."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from opframe_registry import KINDS, Backbone, Dataset, PluginError, Sampler, discover
from plugin_support import GOOD, install
from support import ROOT


def test_an_installed_plugin_is_found_beside_the_built_in_ones(site: Path) -> None:
    install(site, "odd-sampler", GOOD.replace("NAME", "odd"))
    catalog = discover()
    assert catalog.get(Sampler, "odd").name == "odd"
    assert {"balanced", "odd"} <= set(catalog.names(Sampler))


FAULTS = {
    "import-error": ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
    "syntax-error": ("def (", "SyntaxError"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "no-hook": ("x = 1", "offers no components"),
    "no-components": (GOOD.replace("return [Odd]", "return []"), "offers no components"),
    "misspelt-hook": (GOOD.replace("def opframe_components", "def opframe_component"), "unknown hook"),
    "not-attrs": (GOOD.replace("@frozen(kw_only=True)", ""), "Odd is not an attrs class"),
    "positional": (
        GOOD.replace("(kw_only=True)", "").replace("    def build", "    weight: int = 1\n    def build"),
        "Odd takes settings by position",
    ),
    "abstract": (GOOD.replace("def build", "def other"), "Odd is abstract; it lacks build"),
    "no-name": (GOOD.replace("name: ClassVar", "title: ClassVar"), "Odd has no name"),
    "not-a-kind": (GOOD.replace("return [Odd]", "return [int]"), "is not a class derived from Dataset"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_plugin_is_reported_and_the_others_go_on(site: Path, fault: str) -> None:
    code, message = FAULTS[fault]
    install(site, fault, code)
    catalog = discover()
    plugin = next(plugin for plugin in catalog.plugins if plugin.distribution == fault)
    assert plugin.error is not None
    assert message in plugin.error
    assert catalog.get(Sampler, "balanced")
    with pytest.raises(PluginError, match=f"of {fault}: "):
        catalog.get(Sampler, "odd")


def test_a_plugin_of_another_version_of_the_contract_is_never_imported(site: Path) -> None:
    install(site, "from-the-future", "raise AssertionError('imported')", group="opframe.v2")
    plugin = next(plugin for plugin in discover().plugins if plugin.distribution == "from-the-future")
    assert plugin.error == (
        "is made for opframe.v2, this opframe speaks opframe.v1; install a matching version of from-the-future"
    )


def test_one_name_from_two_plugins_is_an_error_until_one_is_chosen(site: Path) -> None:
    install(site, "first-odd", GOOD.replace("NAME", "odd"))
    install(site, "second-odd", GOOD.replace("NAME", "odd"))
    catalog = discover()
    with pytest.raises(PluginError, match="choose with 'first-odd:odd' or 'second-odd:odd'"):
        catalog.get(Sampler, "odd")
    assert catalog.get(Sampler, "second-odd:odd").__module__ == "second_odd"


def test_an_unknown_name_is_answered_with_the_nearest_one(catalog) -> None:
    with pytest.raises(PluginError, match=r"unknown backbone 'dpott'; did you mean 'dpot'\?; installed: .*dpot"):
        catalog.get(Backbone, "dpott")


def test_every_built_in_plugin_works(catalog) -> None:
    assert [plugin for plugin in catalog.plugins if plugin.error] == []
    assert all(catalog.names(kind) for kind in KINDS)
    assert {"navier_stokes", "diffusion_reaction", "radial_dam_break", "prepared"} <= set(catalog.names(Dataset))


def test_entry_points_and_folders_agree() -> None:
    """The entry point is all that a built-in plugin adds to pyproject.toml."""
    project = (ROOT / "pyproject.toml").read_text()
    declared = tomllib.loads(project)["project"]["entry-points"]["opframe.v1"]
    folders = {path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").exists()}
    assert set(declared.values()) == folders
    assert {f"opframe_{name}" for name in declared} == folders
    assert {point.value for point in entry_points(group="opframe.v1") if point.dist.name == "opframe"} == folders
    assert [project.count(f'"{folder}"') for folder in folders] == [1] * len(folders)


def test_listing_imports_neither_torch_nor_numpy() -> None:
    code = "import sys; sys.argv = ['opframe', 'list']\ntry:\n import opframe.__main__; opframe.__main__.main()\n"
    code += "except SystemExit: pass\nprint(sorted({'torch', 'numpy', 'h5py'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "navier_stokes" in done.stdout
