"""What weights are, in a few lines for people."""

from __future__ import annotations

from opframe.config import building
from opframe.config.describe import default_in_words
from opframe.config.structure import to_tables
from opframe.console import counted
from opframe.weights.model_size import model_size
from opframe.weights.pretrained import Header, Weights, check_fit
from opframe.weights.transfer import part_of


def describe(pretrained: Weights) -> list[str]:
    """Backbone, size by part, fields and origin. Raises WeightsError where the weights do not fit."""
    header = pretrained.header
    network = building.build_shapes(header.backbone, header.fields)
    check_fit(network.state_dict(), pretrained.weights, pretrained.location)
    size = model_size(header.backbone, header.fields)
    settings = {key: value for key, value in to_tables(header.backbone).items() if key != "type"}
    return [
        f"{pretrained.location}: {header.backbone.name}, {size.total:,} parameters"
        + (f", {size.activated:,} activated by a sample" if size.activated < size.total else ""),
        "settings: " + ", ".join(f"{key} = {default_in_words(value)}" for key, value in settings.items()),
        *_parts(pretrained),
        *_fields(header),
        *_origin(header),
    ]


def _parts(pretrained: Weights) -> list[str]:
    """Tensors and numbers of each part; buffers are counted in."""
    parts: dict[str, list[int]] = {}
    for name, weight in pretrained.weights.items():
        parts.setdefault(part_of(pretrained.header.backbone, name), []).append(weight.numel())
    wide = max(map(len, parts))
    return [
        f"  {part:{wide}}  {len(counts):4} {'tensor, ' if len(counts) == 1 else 'tensors,'} {sum(counts):,} numbers"
        for part, counts in parts.items()
    ]


def _fields(header: Header) -> list[str]:
    fields = header.fields
    datasets = [f"datasets: {', '.join(fields.datasets)}"] if fields.datasets else []
    datasets += [f"parameters: {', '.join(fields.parameters)}"] if fields.parameters else []
    for item in header.datasets:
        if any(item.units):
            pairs = zip(item.channels, item.units, strict=True)
            datasets.append(f"units of {item.title}: " + ", ".join(f"{name} {unit or '?'}" for name, unit in pairs))
    return [
        f"channels: {', '.join(fields.channels)}",
        f"grid {'x'.join(map(str, fields.grid))}, {counted(fields.history, 'frame')} in, {fields.horizon} out",
        *datasets,
    ]


def _origin(header: Header) -> list[str]:
    origin = header.origin
    return [
        f"from {origin.source}" + (f", {origin.date}" if origin.date else ""),
        *([f"sha256 {origin.sha256}"] if origin.sha256 else []),
        f"normalization of the data: {header.normalizer.name if header.normalizer else 'none'}",
        *(f"  {item.title}: {item.in_words()}" for item in header.datasets if item.state),
        *_trained(header),
        *origin.notes,
    ]


def _trained(header: Header) -> list[str]:
    trained = header.trained
    if trained is None:
        return []
    said = {
        "steps": "" if trained.steps is None else counted(trained.steps, "step"),
        "seed": "" if trained.seed is None else f"seed {trained.seed}",
        "version": trained.opframe and f"opframe {trained.opframe}",
    }
    return [f"trained: {', '.join(filter(None, said.values()))}"] if any(said.values()) else []
