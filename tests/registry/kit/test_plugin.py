"""`pytest --opframe`, as an author of a plugin calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from opframe_registry import KINDS
from opframe_registry.testing import promises_of
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


def test_settings_come_from_a_file_and_what_is_lacking_is_named(tmp_path: Path) -> None:
    needing = GOOD.replace("NAME", "needing").replace("    def build", "    weight: float\n    def build")
    install(tmp_path, "needing", needing)
    done = tried(tmp_path, "--opframe", "needing")
    assert done.returncode == 1
    assert "needing[sampler] cannot be made" in done.stdout
    assert "under [sampler.needing], with --opframe-settings FILE" in done.stdout
    (tmp_path / "settings.toml").write_text("[sampler.needing]\nweight = 2.0\n")
    done = tried(tmp_path, "--opframe", "needing", "--opframe-settings", "settings.toml")
    assert "needing[sampler]::it_gives_as_many_windows_as_asked_for is broken" in done.stdout


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
