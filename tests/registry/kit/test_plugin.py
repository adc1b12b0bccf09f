"""`pytest --opframe`, as an author of a plugin calls it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from opframe_registry import KINDS, PluginError
from opframe_registry.testing import promises_of
from opframe_registry.testing.cases import read_settings
from plugin_support import GOOD, install
from support import ROOT


def tried(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """pytest in a folder where a plugin is installed."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={folder}", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=120)


def test_a_broken_component_fails_by_the_name_of_its_promise(tmp_path: Path) -> None:
    install(tmp_path, "oddly", GOOD.replace("NAME", "odd"))
    done = tried(tmp_path, "--opframe", "oddly")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "odd[sampler]::it_gives_as_many_windows_as_asked_for is broken. Promised: An order gives" in done.stdout
    assert "Found: 0 windows of 1 at step 0" in done.stdout
    assert "Traceback" not in done.stdout


NEEDING = (
    GOOD.replace("NAME", "needing")
    .replace(
        "    def build(self, populations):", "    weight: float\n    url: Location\n    def build(self, populations):"
    )
    .replace("import Sampler", "import Location, Sampler")
)


def test_what_is_lacking_is_named_and_comes_from_a_file_whose_paths_are_its_own(tmp_path: Path) -> None:
    says = NEEDING.replace("return lambda", "raise ValueError(f'{self.weight!r} {self.url}')\n        return lambda")
    install(tmp_path, "needing", says)
    done = tried(tmp_path, "--opframe", "needing")
    assert done.returncode == 1
    assert "needing[sampler] cannot be made" in done.stdout
    assert "under [sampler.needing], with --opframe-settings FILE" in done.stdout
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "tings.toml").write_text('[sampler.needing]\nweight = 2\nurl = "data/{split}.h5"\n')
    done = tried(tmp_path, "--opframe", "needing", "--opframe-settings", "set/tings.toml")
    assert f"Found: ValueError: 2.0 {tmp_path / 'set' / 'data' / '{split}.h5'}" in done.stdout


TEST = """
from opframe_registry.testing import PromiseError
import pytest

def test_of_its_own(opframe_component):
    assert opframe_component.component.weight == 3.0
    assert opframe_component.folder.is_dir()

def test_conforms(opframe_component):
    opframe_component.check()
"""


def test_a_test_of_the_package_takes_its_components_without_any_option(tmp_path: Path) -> None:
    install(tmp_path, "needing", NEEDING)
    table = "[tool.opframe.conformance.sampler.needing]\nweight = 3.0\nurl = 'a'\n"
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "needing"\n{table}')
    (tmp_path / "test_own.py").write_text(TEST)
    done = tried(tmp_path, "-rA")
    assert "PASSED test_own.py::test_of_its_own[needing[sampler]]" in done.stdout, done.stdout
    assert "FAILED test_own.py::test_conforms[needing[sampler]]" in done.stdout
    assert "needing[sampler]::it_gives_as_many_windows_as_asked_for is broken." in done.stdout
    assert "needing[sampler]::every_window_is_drawn is broken." in done.stdout


def test_facts_are_shown_with_v(tmp_path: Path) -> None:
    done = tried(tmp_path, "-vv", "--opframe", "opframe_sampling", "-k", "weight")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "facts of opframe's components" in done.stdout
    assert "balanced[sampler]: datasets of the weights 1, 3, 0.5 " in done.stdout


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[sampel.odd]", "[sampel] is no kind of component; did you mean 'sampler'?"),
        ("[sampler]\nodd = 1", "[sampler] holds keys; expected a table for each component, as [sampler.NAME]"),
        ("[sampler", "cannot be read"),
    ],
)
def test_settings_that_mean_nothing_are_refused(written: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(written)
    with pytest.raises(PluginError, match=re.escape(f"{path}")) as refused:
        read_settings(path)
    assert said in str(refused.value)


def test_an_unknown_package_is_said_to_be(tmp_path: Path) -> None:
    done = tried(tmp_path, "--opframe", "nothing-there")
    assert done.returncode == 4
    assert "nothing-there: no such package has plugins of opframe; there are " in done.stderr


def test_without_the_option_pytest_does_what_it_does_and_imports_no_torch(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import sys\ndef test_it():\n    assert 'torch' not in sys.modules\n")
    done = tried(tmp_path)
    assert "1 passed" in done.stdout, done.stdout


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_every_promise_is_on_the_page(kind: type) -> None:
    page = " ".join((ROOT / "docs" / "conformance.md").read_text(encoding="utf-8").split())
    for promise in promises_of(kind.kind):  # type: ignore[attr-defined]
        assert f"`{promise.__name__}`: {' '.join((promise.__doc__ or '').split())}" in page
