"""Checkpoint files that the authors of a network published: read safely, and mapped onto a backbone of ours."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from opframe.config import building
from opframe.weights.location import WeightsError
from opframe.weights.pretrained import check_fit
from opframe_registry import Backbone, Catalog, ConfigError, Published

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80\x02"
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_BROKEN = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError)
_SHOWN = 6


@frozen(kw_only=True, eq=False)
class File:
    """What a checkpoint file holds: arguments of the network, its weights, and names of whatever else there is."""

    source: str
    sha256: str
    arguments: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    others: tuple[str, ...]


def read_file(path: Path, source: str) -> File:
    """Read a file that torch.save wrote, without running anything in it; `source` is what it is called in messages.

    It is a state dict, or a dictionary with one as `model` and the arguments as `args`. Raises WeightsError.
    """
    content = _load(path, source)
    model = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(model, Mapping) or not model or not all(isinstance(item, Tensor) for item in model.values()):
        found = f"it holds {', '.join(map(str, content))}" if isinstance(content, Mapping) else "it holds no dictionary"
        raise WeightsError(f"{source}: no state dict found, neither as 'model' nor in place of the file; {found}")
    wrapped = model is not content
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return File(
        source=source,
        sha256=digest,
        arguments=_arguments(content.get("args")) if wrapped else {},
        weights=_unwrapped(model),
        others=tuple(str(key) for key in content if key not in ("args", "model")) if wrapped else (),
    )


def _load(path: Path, source: str) -> Any:
    """torch.load with one class allowed beside tensors and plain values: the arguments' own."""
    with path.open("rb") as file:
        if not file.read(4).startswith((_ZIP, _PICKLE)):
            raise WeightsError(f"{source}: not a file that torch.save wrote")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except _BROKEN as error:
        refused = _GLOBAL.search(str(error))
        if refused:
            raise WeightsError(
                f"{source}: refused, nothing in it was run: it asks for {refused[1]}, but only tensors, plain values "
                "and argparse.Namespace are read"
            ) from error
        raise WeightsError(f"{source}: cannot be read as a checkpoint of torch; truncated?") from error


def _arguments(args: Any) -> dict[str, Any]:
    """The arguments by name, however they were kept."""
    if isinstance(args, argparse.Namespace):
        return vars(args)
    return dict(args) if isinstance(args, Mapping) else {}


def _unwrapped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that DistributedDataParallel puts before every name."""
    wrapped = all(name.startswith("module.") for name in weights)
    return {name.removeprefix("module.") if wrapped else name: weight for name, weight in weights.items()}


def recognise(file: File, catalog: Catalog) -> Published:
    """Ask every installed backbone what it makes of a file; exactly one must know it. Raises WeightsError."""
    asked = [item for _, item in catalog.offers(Backbone) if issubclass(item, Backbone)]
    answers = [answer for item in asked if (answer := _ask(item, file)) is not None]
    if len(answers) == 1:
        return answers[0]
    if answers:
        owners = " and ".join(answer.backbone.name for answer in answers)
        raise WeightsError(f"{file.source}: {owners} both take it for their own; uninstall the plugin that is wrong")
    names = list(file.weights)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    raise WeightsError(
        f"{file.source}: none of the installed backbones knows it (asked: "
        f"{', '.join(item.name for item in asked)}); its tensors: {', '.join(names[:_SHOWN])}{more}"
    )


def _ask(item: type[Backbone], file: File) -> Published | None:
    with building.blamed(item, "from_published"):
        try:
            return item.from_published(file.arguments, file.weights)
        except (ValueError, ConfigError) as error:
            raise WeightsError(f"{file.source}: {item.name} knows it, but cannot use it: {error}") from error


def checked(published: Published, file: File) -> dict[str, Tensor]:
    """The mapped weights in the precision of the network, every one of its tensors among them.

    Raises WeightsError where a tensor of the network or of the file is left over, or shapes differ.
    """
    forgotten = sorted(file.weights.keys() - published.mapped.keys())
    if forgotten:
        raise WeightsError(f"{file.source}: {published.backbone.name} does not say what becomes of {forgotten[0]}")
    try:
        expected = building.build_shapes(published.backbone, published.fields).state_dict()
    except ConfigError as error:
        raise WeightsError(f"{file.source}: {error}") from error
    check_fit(expected, published.weights, file.source)
    return {name: published.weights[name].to(weight.dtype) for name, weight in expected.items()}
