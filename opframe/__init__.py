"""opframe: pre-training of neural operators from plugins and a TOML file."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["__version__", "load_pretrained"]
__version__ = version("opframe")


def load_pretrained(where: str | Path, *, dataset: str | None = None, statistics_of: Tensor | None = None) -> nn.Module:
    """A trained network, ready for predictions: (B, history, C, *grid) to a `Prediction`, in evaluation mode.

    Frames and predictions are in the data's own units. `where` is a weights folder or a run folder (its latest
    checkpoint), a URL of the former for fsspec (`https://`, `s3://`, `hf://`), or `org/name` of a Hugging Face
    repository. Nothing but numbers and settings is read, no code.

    Where the data of training were normalised, `dataset` is the title of the one that frames are of; it may be left
    out if there was one. For other data, `statistics_of` has frames of theirs (N, T, channels, *grid), by whose mean
    and deviation they are normalised, as zero-shot data are. Raises OpframeError.
    """
    from opframe.weights.physical import physical_network
    from opframe.weights.pretrained import read_pretrained
    from opframe_registry import discover

    return physical_network(read_pretrained(where, discover()), dataset, statistics_of)
