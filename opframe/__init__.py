"""opframe: pre-training of neural operators from plugins and a TOML file."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["__version__", "load_pretrained"]
__version__ = version("opframe")


def load_pretrained(where: str | Path) -> nn.Module:
    """A trained network, ready for predictions: (B, history, C, *grid) to a `Prediction`, in evaluation mode.

    `where` is a weights folder or a run folder, a URL of the former for fsspec (`https://`, `s3://`, `hf://`), or
    `org/name` of a Hugging Face repository. Nothing but numbers and settings is read, no code. Raises OpframeError.
    """
    from opframe.weights.pretrained import build_network, read_pretrained
    from opframe_registry import discover

    return build_network(read_pretrained(where, discover()))
