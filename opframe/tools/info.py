"""What datasets are, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, prod
from pathlib import Path

from opframe.console import bytes_in_words, counted, few
from opframe.mixture.source import frames_in_words, lengths_of
from opframe.tools.selection import Part
from opframe_registry import Metadata
from opframe_registry.metadata import boundary_in_words


def facts(part: Part, frames: int | None) -> dict[str, str]:
    """What one split's metadata says, as rows. `frames` is the length of a training window, where it is known."""
    metadata = part.source.metadata
    rows = {
        "channels": ", ".join(_channels(metadata)),
        "predicted": _predicted(metadata),
        "grid": _grid(metadata),
        "boundary": boundary_in_words(metadata.boundary),
        "time step": "unknown" if metadata.time_step is None else f"{metadata.time_step:g}",
        "missing": "" if metadata.missing is None else f"{metadata.missing:g} stands where there is no value",
        "vectors": "; ".join(", ".join(group) for group in metadata.vectors),
        "conserved": ", ".join(f"{name} ({' x '.join(density)})" for name, density in metadata.conserved.items()),
        **{f"parameter {name}": _parameter(values) for name, values in sorted(metadata.parameters.items())},
        "source": metadata.source,
        "licence": metadata.license,
        "left out": ", ".join(map(str, part.excluded)),
        "held out": _held_out(part.held_out),
        "rule": metadata.split,
        "data": _amount(metadata, frames),
    }
    return {name: words for name, words in rows.items() if words}


def _held_out(numbers: Sequence[int]) -> str:
    return f"{counted(len(numbers), 'trajectory')} for validation: {few(numbers)}" if numbers else ""


def _channels(metadata: Metadata) -> list[str]:
    units = metadata.units or ("",) * len(metadata.channels)
    return [f"{name} [{unit}]" if unit else name for name, unit in zip(metadata.channels, units, strict=True)]


def _predicted(metadata: Metadata) -> str:
    given = [name for name in metadata.channels if name not in metadata.predicted]
    return f"{', '.join(metadata.predicted)} (input only: {', '.join(given)})" if given else "all channels"


def _grid(metadata: Metadata) -> str:
    grid = " x ".join(map(str, metadata.grid))
    return f"{grid}, spacing {' x '.join(f'{step:.4g}' for step in metadata.spacing)}" if metadata.spacing else grid


def _parameter(values: Sequence[float]) -> str:
    known = [value for value in values if not isnan(value)]
    if not known:
        return "unknown"
    low, high = min(known), max(known)
    words = f"{low:g}" if low == high else f"{low:g} to {high:g}, {len(set(known))} values"
    return words if len(known) == len(values) else f"{words}; unknown for {len(values) - len(known)}"


def _amount(metadata: Metadata, frames: int | None) -> str:
    lengths = lengths_of(metadata)
    words = [f"{counted(metadata.trajectories, 'trajectory')} of {frames_in_words(metadata)}"]
    if frames is not None:
        words.append(f"{sum(max(length - frames + 1, 0) for length in lengths)} windows of {frames}")
    words.append(f"{bytes_in_words(4 * sum(lengths) * len(metadata.channels) * prod(metadata.grid))} as float32")
    return ", ".join(words)


def together(splits: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
    """The rows of several splits: what they agree on once, what they do not with the name of the split."""
    names = dict.fromkeys(name for rows in splits.values() for name in rows)
    table: list[tuple[str, str]] = []
    for name in names:
        words = {split: rows[name] for split, rows in splits.items() if name in rows}
        if len(set(words.values())) == 1 and len(words) == len(splits) and name not in ("data", "rule"):
            table.append((name, next(iter(words.values()))))
        else:
            table += [(split if name == "data" else f"{name} ({split})", words) for split, words in words.items()]
    return table


def absolute(url: str) -> str:
    """A path as it can be written into a config anywhere."""
    return url if "://" in url else str(Path(url).expanduser().resolve())
