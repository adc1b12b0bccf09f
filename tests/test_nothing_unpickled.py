"""Nothing of a file or a server is run: sources read no pickles, but for the reader that lets through what it names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from support import ROOT

FORBIDDEN = {"eval", "exec", "pickle.load", "pickle.Unpickler", "dill.load", "joblib.load", "yaml.load", "os.system"}
SOURCES = ("opframe", "plugins", "registry")
KNOWN = {"opframe/weights/stored.py: pickle.Unpickler"}  # a subclass that admits what a checkpoint consists of


def called(node: ast.AST) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def found_in(path: Path) -> Iterator[str]:
    place = path.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = called(node)
        if name in FORBIDDEN or (
            isinstance(node, ast.ClassDef) and "Unpickler" in "".join(map(ast.unparse, node.bases))
        ):
            yield f"{place}: {name or 'pickle.Unpickler'}"
        if not isinstance(node, ast.Call):
            continue
        options = {each.arg: ast.unparse(each.value) for each in node.keywords}
        if name == "torch.load" and options.get("weights_only") != "True":
            yield f"{place}: torch.load without weights_only"
        if options.get("allow_pickle", "False") != "False":
            yield f"{place}: {name} with allow_pickle"
        if name == "pickle.loads" and not ("pickle.dumps" in ast.unparse(node) or "testing" in place):
            yield f"{place}: pickle.loads of what this process has not pickled"


def test_no_source_runs_what_it_reads() -> None:
    paths = [path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 200
    assert {found for path in paths for found in found_in(path)} == KNOWN
