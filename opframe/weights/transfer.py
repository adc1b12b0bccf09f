"""Trained weights into another network: what is copied, what is adapted, and what has no place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import torch
from attrs import asdict, frozen
from torch import Tensor, nn

from opframe.config.building import blamed
from opframe.weights.location import WeightsError
from opframe.weights.pretrained import Weights
from opframe_registry import Backbone, Change, ConfigError, Fields, PluginError, did_you_mean

Status = Literal["copied", "adapted", "fresh", "unused"]
_STATUSES: tuple[Status, ...] = ("copied", "adapted", "fresh", "unused")
_REASONS = 3


@frozen(kw_only=True)
class Entry:
    """What became of one tensor.

    `copied` and `adapted` were taken from the source, `fresh` is as the seed made it, and `unused` is a tensor of
    the source that the network has no place for. `how` says what was done, or why nothing was.
    """

    part: str
    name: str
    status: Status
    how: str = ""


@frozen(kw_only=True)
class Transfer:
    """The report of one transfer, with an entry for every tensor of the network and every tensor of the source.

    `checkpoint` says which checkpoint of a run the weights are and how it was chosen, where they are of a run.
    """

    source: str
    entries: tuple[Entry, ...]
    checkpoint: str = ""

    def count(self, status: Status) -> int:
        """How many tensors have this status."""
        return sum(entry.status == status for entry in self.entries)

    def summary(self) -> list[str]:
        """A line for the source, one for each part, and one for what is unused."""
        parts = dict.fromkeys(entry.part for entry in self.entries)
        wide = max(len(part) for part in parts)
        chosen = [self.checkpoint] if self.checkpoint else []
        return [f"weights from {self.source}", *chosen, *(f"  {part:{wide}}  {self._of_part(part)}" for part in parts)]

    def _of_part(self, part: str) -> str:
        """As `4 copied, 2 adapted (grid 8x8 to 16x16), 1 fresh (...)`, with each of the first reasons once."""
        words: list[str] = []
        for status in _STATUSES:
            mine = [entry for entry in self.entries if (entry.part, entry.status) == (part, status)]
            reasons = list(dict.fromkeys(entry.how for entry in mine if entry.how))
            listed = "; ".join([*reasons[:_REASONS], *(["..."] if len(reasons) > _REASONS else [])])
            words += [f"{len(mine)} {status}" + (f" ({listed})" if listed else "")] if mine else []
        return ", ".join(words)

    def table(self) -> str:
        """Every tensor on a line of its own."""
        wide = max(len(entry.name) for entry in self.entries)
        lines = [f"{entry.status:8} {entry.name:{wide}}  {entry.how}".rstrip() for entry in self.entries]
        return "\n".join([f"weights from {self.source}", *lines])

    def to_json(self) -> str:
        """The same for programs: `source`, `checkpoint`, `counts` by status, and `tensors`."""
        counts = {status: self.count(status) for status in _STATUSES}
        entries = [asdict(entry) for entry in self.entries]
        origin = {"source": self.source, "checkpoint": self.checkpoint}
        return json.dumps({**origin, "counts": counts, "tensors": entries}, indent=1)


def transfer(
    backbone: Backbone,
    network: nn.Module,
    fields: Fields,
    pretrained: Weights,
    components: Sequence[str] | Literal["all"] = "all",
) -> Transfer:
    """Load what fits of trained weights into `network`, which `backbone` has built for `fields`.

    `components` are parts of the backbone. Weights keep the network's device and precision. Raises ConfigError
    naming a part that there is not, WeightsError where nothing at all could be taken.
    """
    chosen = _patterns(backbone, components)
    state: dict[str, Tensor] = network.state_dict()
    entries = [
        _take(backbone, name, weight, fields, pretrained)
        if any(fnmatchcase(name, pattern) for pattern in chosen)
        else Entry(part=part_of(backbone, name), name=name, status="fresh", how="not among the components")
        for name, weight in state.items()
    ]
    entries += [
        Entry(part=part_of(pretrained.header.backbone, name), name=name, status="unused", how="no place in the network")
        for name in pretrained.weights
        if name not in state
    ]
    header = pretrained.header
    source = f"{pretrained.location} ({header.backbone.name})"
    result = Transfer(source=source, entries=tuple(entries), checkpoint=header.origin.checkpoint)
    if not result.count("copied") + result.count("adapted"):
        lines = "\n".join(result.summary())
        raise WeightsError(f"{pretrained.location}: nothing in it fits the network\n{lines}")
    return result


def begun_with(folder: Path) -> str:
    """Which checkpoint a run folder's `init.json` names, to be read behind a comma; empty where it names none."""
    path = folder / "init.json"
    checkpoint = json.loads(path.read_text(encoding="utf-8")).get("checkpoint") if path.exists() else None
    return f", {checkpoint}" if checkpoint else ""


def _patterns(backbone: Backbone, components: Sequence[str] | Literal["all"]) -> list[str]:
    if components == "all":
        return ["*"]
    known = backbone.parts
    for name in components:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise ConfigError(
                f"init.components: {backbone.name} has no part '{name}'{did_you_mean(name, known)}; its parts: {listed}"
            )
    return [pattern for name in components for pattern in known[name]]


def part_of(backbone: Backbone, name: str) -> str:
    """The part of a backbone that a tensor belongs to."""
    found = (part for part, patterns in backbone.parts.items() if any(fnmatchcase(name, item) for item in patterns))
    return next(found, "other")


def _take(backbone: Backbone, name: str, fresh: Tensor, fields: Fields, pretrained: Weights) -> Entry:
    """Load one tensor, if there is one for it that fits."""
    part = part_of(backbone, name)
    weight = pretrained.weights.get(name)
    if weight is None:
        return Entry(part=part, name=name, status="fresh", how="not in the source")
    change = Change(
        name=name,
        weight=weight.to(fresh),
        fresh=fresh.detach().clone(),
        source=pretrained.header.fields,
        target=fields,
        weights=pretrained.weights,
    )
    with blamed(backbone, "adapt"):
        adapted = backbone.adapt(change)
    if adapted is None:
        return Entry(part=part, name=name, status="fresh", how=f"{_shape(weight)} does not fit {_shape(fresh)}")
    if adapted.weight.shape != fresh.shape:
        raise PluginError(
            f"backbone {backbone.name} adapts {name} to the shape {_shape(adapted.weight)}, not {_shape(fresh)}"
        )
    with torch.no_grad():
        fresh.copy_(adapted.weight)
    return Entry(part=part, name=name, status="adapted" if adapted.how else "copied", how=adapted.how)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
