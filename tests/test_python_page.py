"""The page about the Python API and the notebook do what they say."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
import tomli_w
from nbclient import NotebookClient

import opframe
from support import ROOT

PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_every_line_of_the_page_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first, *others = PYTHON.findall(PAGE)
    names: dict[str, object] = {}
    exec(compile(first, "docs/python.md", "exec"), names)
    tables = re.search(r"load_experiment\(\n(.*)\n\)", first, re.DOTALL)
    assert tables is not None
    (tmp_path / "experiment.toml").write_text(tomli_w.dumps(eval(tables[1].strip())))  # the same, as a file
    for block in others:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["predicted"].shape == (16, 1, 32, 32)
    assert len(names["losses"]) == 10
    assert (tmp_path / "comparison" / "comparison.png").exists()
    printed = capsys.readouterr().out
    assert "trainer: unknown key 'stepz'; did you mean 'steps'?" in printed
    assert "backbone.width: expected int, got '32'" in printed


def test_every_public_name_is_on_the_page() -> None:
    missing = [name for name in opframe.__all__ if name != "__version__" and f"`{name}`" not in PAGE]
    assert missing == []


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first cell to its last, and it draws; it is kept without outputs, and uses public names alone."""
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    source = "\n".join(cell.source for cell in cells)
    assert set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE)) == {"opframe", "numpy", "matplotlib"}
    assert set(re.findall(r"\bopframe\.(\w+)", source)) <= {*opframe.__all__}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert (tmp_path / "runs" / "notebook" / "report.md").exists()
