"""opframe: pre-training of neural operators from plugins and a TOML file.

The names below are all that scripts and notebooks need; docs/python.md shows them at work.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from opframe_registry import OpframeError

if TYPE_CHECKING:
    from opframe.api import (
        Comparison,
        Data,
        Pretrained,
        Report,
        Run,
        compare,
        evaluate,
        forecast,
        load_experiment,
        load_pretrained,
        open_data,
        train,
    )
    from opframe.config.settings import Experiment

__all__ = [
    "Comparison",
    "Data",
    "Experiment",
    "OpframeError",
    "Pretrained",
    "Report",
    "Run",
    "__version__",
    "compare",
    "evaluate",
    "forecast",
    "load_experiment",
    "load_pretrained",
    "open_data",
    "train",
]
__version__ = version("opframe")


def __getattr__(name: str) -> object:
    """The public names, which need torch, when they are asked for: listing plugins does not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module 'opframe' has no attribute '{name}'")
    return getattr(import_module("opframe.config.settings" if name == "Experiment" else "opframe.api"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
