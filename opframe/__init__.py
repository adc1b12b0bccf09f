"""opframe: pre-training of neural operators from plugins and a TOML file."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from opframe.weights.model import Pretrained

__all__ = ["Pretrained", "__version__", "load_pretrained"]
__version__ = version("opframe")


def load_pretrained(
    source: str | Path, *, dataset: str | None = None, statistics_of: Tensor | None = None
) -> Pretrained:
    """A trained network that forecasts in the data's own units, in evaluation mode, on the CPU.

    `source` is a weights folder or a run folder (its latest checkpoint), a URL of the former for fsspec (`https://`,
    `s3://`, `hf://`), or `org/name` of a Hugging Face repository. Nothing but numbers and settings is read, no code.

    `dataset` is the title of the one, among those of training, that frames are of. Where these were normalised it has
    to be known, here or when it is used, unless there is only one. For other data, `statistics_of` has frames of theirs
    (N, T, channels, *grid), of which is learnt what they are normalised by, as of zero-shot data. Raises OpframeError.
    """
    from opframe.weights.model import Pretrained
    from opframe.weights.pretrained import read_pretrained
    from opframe_registry import discover

    return Pretrained(read_pretrained(source, discover()), dataset, statistics_of)


def __getattr__(name: str) -> object:
    """`Pretrained`, which is made of torch, when it is asked for."""
    if name == "Pretrained":
        from opframe.weights.model import Pretrained

        return Pretrained
    raise AttributeError(f"module 'opframe' has no attribute '{name}'")
