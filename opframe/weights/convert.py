"""Weights folders made of published checkpoints and of runs, with a report of what is in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from attrs import evolve, frozen
from torch import Tensor

from opframe.console import counted
from opframe.weights.location import WeightsError, local_copy, resolve
from opframe.weights.normalization import without_numbers
from opframe.weights.pretrained import (
    RUN_HEADER,
    Header,
    Origin,
    Weights,
    is_run,
    now,
    read_pretrained,
    write_folder,
)
from opframe.weights.published import File, checked, read_file, recognise
from opframe.weights.summary import describe
from opframe_registry import Catalog, ConfigError, Fields, Published, did_you_mean


@frozen(kw_only=True)
class ImportOptions:
    """What the person says of a file that it does not say itself: `PATTERN=VALUE` for tensors, channel names."""

    fills: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


def import_file(url: str, out: Path, options: ImportOptions, catalog: Catalog) -> list[str]:
    """Write the weights folder `out` from a checkpoint file anywhere; returns the report, line by line.

    Raises WeightsError or ConfigError, in which case nothing is written.
    """
    if out.exists():
        raise WeightsError(f"{out} exists; choose another folder")
    source = resolve(url)
    with local_copy(source) as path:
        file = read_file(path, source)
        published = recognise(file, catalog)
        weights = checked(published, file)
        filled = fill(weights, published.assumed, options.fills)
        fields = name_channels(published.fields, options.channels)
        notes = _notes(published, file, filled, named=bool(options.channels))
        origin = Origin(source=source, sha256=file.sha256, date=now(), notes=tuple(notes))
        header = Header(backbone=published.backbone, fields=fields, origin=origin)
        weights |= filled
        write_folder(header, weights, out)
        pretrained = Weights(location=str(out), header=header, weights=weights)
        return [f"{source}: {_fates(published, file)}", *describe(pretrained)]


def fill(weights: Mapping[str, Tensor], assumed: Mapping[str, str], fills: Sequence[str]) -> dict[str, Tensor]:
    """The assumed tensors that `PATTERN=VALUE` sets to other numbers. Raises ConfigError where nothing matches."""
    filled: dict[str, Tensor] = {}
    for option in fills:
        pattern, separator, written = option.rpartition("=")
        try:
            value = float(written)
        except ValueError:
            separator = ""
        if not separator or not pattern:
            raise ConfigError(f"--fill {option}: expected PATTERN=NUMBER, as in '*.temperature=2.0'")
        names = [name for name in assumed if name in weights and fnmatchcase(name, pattern)]
        if not names:
            known = [name for name in assumed if name in weights]
            raise ConfigError(
                f"--fill {option}: '{pattern}' matches no tensor that was assumed{did_you_mean(pattern, known)}; "
                f"those are: {', '.join(known) or 'none'}"
            )
        filled |= {name: torch.full_like(weights[name], value) for name in names}
    return filled


def name_channels(fields: Fields, channels: Sequence[str]) -> Fields:
    """The fields with names of the person's own. Raises ConfigError unless there is one for each channel."""
    if channels and len(channels) != len(fields.channels):
        raise ConfigError(f"--channels {','.join(channels)}: {len(channels)} names for {len(fields.channels)} channels")
    return evolve(fields, channels=tuple(channels)) if channels else fields


def _notes(published: Published, file: File, filled: Mapping[str, Tensor], named: bool) -> list[str]:
    """What a reader of the folder should know of the weights; `named`: the person has said what the channels are."""
    assumed = {
        name: f"{float(filled[name].flatten()[0]):g}, as asked" if name in filled else words
        for name, words in published.assumed.items()
        if not (named and name == "channels")
    }
    left_out = [f"left out: {', '.join(file.others)}"] if file.others else []
    return [*(f"assumed: {name}: {words}" for name, words in assumed.items()), *left_out]


def _fates(published: Published, file: File) -> str:
    """What became of the file's tensors, in one line."""
    fates = Counter(published.mapped.values())
    words = ", ".join(f"{count} {fate}" for fate, count in fates.items())
    return f"the file's {counted(len(file.weights), 'tensor')}: {words}"


def export_run(run: str, out: Path, catalog: Catalog, checkpoint: str = "latest") -> list[str]:
    """Write the weights folder `out` from a checkpoint of a run; returns the report.

    `checkpoint` is `latest`, `best` (by the error on validation data) or a step. Raises WeightsError, in which case
    nothing is written.
    """
    if not is_run(resolve(run)):
        raise WeightsError(f"{run} is no run folder with a {RUN_HEADER}")
    pretrained = read_pretrained(run, catalog, checkpoint)
    if pretrained.header.normalised and not pretrained.header.datasets:
        raise WeightsError(without_numbers(run))
    header = evolve(pretrained.header, origin=evolve(pretrained.header.origin, date=now()))
    report = describe(evolve(pretrained, location=str(out), header=header))
    write_folder(header, pretrained.weights, out)
    return report
