"""Plugins as pip installs them, without pip: a small one that works, and what leaves any other in a folder."""

from __future__ import annotations

from pathlib import Path

GOOD = """
from typing import ClassVar
from attrs import field, frozen
from opframe_registry import Sampler, hookimpl

@frozen(kw_only=True)
class Odd(Sampler):
    \"\"\"Draws oddly.\"\"\"
    name: ClassVar[str] = "NAME"
    def build(self, populations):
        return lambda seed, step, size: []

@hookimpl
def opframe_components():
    return [Odd]
"""


def install(folder: Path, distribution: str, code: str, group: str = "opframe.v1") -> None:
    """What pip leaves behind: a module, and a dist-info with its entry point."""
    module = distribution.replace("-", "_")
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{module} = {module}\n")
