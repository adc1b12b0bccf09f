"""What is given away is whole: all packages under their names, the licence, and whom to cite."""

from __future__ import annotations

import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from hatchling import build

from support import ROOT

PACKAGES = {
    "opframe": ROOT / "opframe",
    **{
        path.parent.name: path.parent
        for folder in ("registry", "plugins")
        for path in ROOT.glob(f"{folder}/*/__init__.py")
    },
}


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build back ends are called in the folder of the project."""
    monkeypatch.chdir(ROOT)


def test_a_wheel_has_every_package_under_its_name_and_the_licence(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / build.build_wheel(str(tmp_path))) as wheel:
        names = set(wheel.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        assert wheel.read(metadata.replace("METADATA", "licenses/LICENSE")) == (ROOT / "LICENSE").read_bytes()
        assert "License-Expression: Apache-2.0" in wheel.read(metadata).decode()
    modules = {
        f"{name}/{path.relative_to(folder)}" for name, folder in PACKAGES.items() for path in folder.rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == modules
    assert {name.split("/")[0] for name in names} == {*PACKAGES, metadata.split("/")[0]}


def test_an_editable_installation_finds_the_same_packages(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / build.build_editable(str(tmp_path))) as wheel:
        (paths,) = (wheel.read(name).decode().split("\n") for name in wheel.namelist() if name.endswith(".pth"))
    assert {Path(path) for path in paths} == {folder.parent for folder in PACKAGES.values()}


def test_a_source_distribution_has_what_the_checks_need(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / build.build_sdist(str(tmp_path))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {"LICENSE", "CITATION.cff", "README.md", "constraints.txt", "pyproject.toml", ".ci/run"}
    assert names >= {str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("*.py")}


def test_the_citation_names_the_papers_that_the_models_are_from() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["license"] == project["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]
    papers = {reference["identifiers"][0]["value"] for reference in citation["references"]}
    assert papers == {"arXiv:2403.03542", "arXiv:2510.25803"}
