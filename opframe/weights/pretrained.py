"""A weights folder: `model.safetensors` and `config.toml`, which says what network they belong to."""

from __future__ import annotations

import os
import shutil
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import tomli_w
import torch
from attrs import evolve, field, frozen
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from opframe.config import building
from opframe.config.structure import ProblemsError, make_converter, to_tables
from opframe.files.refusal import once_more
from opframe.weights.headers import current
from opframe.weights.location import WeightsError, local_copy, local_folder, read_bytes, resolve_folder
from opframe.weights.normalization import DatasetRecord, recovered
from opframe.weights.runs import chosen_checkpoint, read_checkpoint
from opframe_registry import Backbone, Catalog, Fields, Normalizer

WEIGHTS, HEADER, RUN_HEADER = "model.safetensors", "config.toml", "model.toml"
_SHOWN = 8
_CHECKPOINT = "checkpoint: "  # begins the note that says which of a run's checkpoints was taken


@frozen(kw_only=True)
class Origin:
    """Where weights come from."""

    source: str = field(metadata={"help": "the file or the run they come from"})
    sha256: str = field(default="", metadata={"help": "of the source file"})
    date: str = field(default="", metadata={"help": "when they were taken from there"})
    notes: tuple[str, ...] = field(default=(), metadata={"help": "what was assumed, and what was left out"})

    @property
    def checkpoint(self) -> str:
        """Which checkpoint of a run the weights are, and how it was chosen; empty where they are of none."""
        return next((note for note in self.notes if note.startswith(_CHECKPOINT)), "")


@frozen(kw_only=True)
class Trained:
    """How weights were trained, as far as it is known."""

    steps: int | None = field(default=None, metadata={"help": "optimizer steps"})
    seed: int | None = field(default=None, metadata={"help": "of weights, data order and noise"})
    selected: str = field(default="", metadata={"help": "how they were chosen among the checkpoints of their run"})
    opframe: str = field(default="", metadata={"help": "the version that trained them"})


@frozen(kw_only=True)
class Header:
    """What a weights folder says of its weights: enough to build their network, and to forecast in physical units."""

    format: Literal[1] = field(default=1, metadata={"help": "of this file"})
    backbone: Backbone = field(metadata={"help": "the network"})
    fields: Fields = field(metadata={"help": "what it maps to what"})
    normalizer: Normalizer | None = field(
        default=None, metadata={"help": "of the data, before the network (default: they are as they are)"}
    )
    datasets: tuple[DatasetRecord, ...] = field(
        default=(), metadata={"help": "what they were trained on, in the order of fields.datasets, where it is known"}
    )
    trained: Trained | None = field(default=None, metadata={"help": "how they were trained, where it is known"})
    origin: Origin = field(metadata={"help": "where the weights come from"})

    @property
    def normalised(self) -> bool:
        """Whether the network was trained on data that a normalizer has changed."""
        return self.normalizer is not None and self.normalizer.changes

    def __attrs_post_init__(self) -> None:
        known, titles = [item.title for item in self.datasets], self.fields.datasets
        if known and sorted(known) != sorted(titles):
            raise ValueError(f"[[datasets]] is of {', '.join(known)}, but fields.datasets are {', '.join(titles)}")
        width = len(self.fields.channels)
        if wide := [item for item in self.datasets if len(item.channels) > width]:
            raise ValueError(f"[[datasets]]: {wide[0].title} has {len(wide[0].channels)} channels of {width}")
        for item in self.datasets:
            if self.normalizer is None or not self.normalised:
                if item.state:
                    raise ValueError(f"[[datasets]]: {item.title} has a state, but there is no normalizer to take it")
                continue
            try:
                item.normalization(self.normalizer, self.fields.grid)
            except ValueError as error:
                raise ValueError(f"[[datasets]]: {item.title}: {error}") from error


@frozen(kw_only=True, eq=False)
class Weights:
    """Weights by their names in the network's state dict, their header, and where they were read."""

    location: str
    header: Header
    weights: Mapping[str, Tensor]


def now() -> str:
    """This second, for `Origin.date`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def header_toml(header: Header) -> str:
    """The header as TOML: `config.toml` of a weights folder, `model.toml` of a run."""
    tables = to_tables(header)
    return tomli_w.dumps({key: value for key, value in tables.items() if value != []})


def parse_header(content: bytes, catalog: Catalog, place: str) -> Header:
    """Read a header strictly. Raises WeightsError with everything that is wrong in it; `place` is its file."""
    try:
        tables = tomllib.loads(content.decode("utf-8"))
    except ValueError as error:
        raise WeightsError(f"{place}: not valid TOML: {error}") from error
    if "format" not in tables:
        raise WeightsError(f"{place}: does not describe weights, it has no 'format'; export a run to get such a file")
    try:
        header: Header = make_converter(catalog).structure(current(tables), Header)
    except ProblemsError as error:
        lines = "".join(f"\n  {': '.join(filter(None, (item.place, item.message)))}" for item in error.problems)
        raise WeightsError(f"{place} does not describe weights that can be used here:{lines}") from None
    return header


def read_pretrained(where: str | Path, catalog: Catalog, checkpoint: str = "latest") -> Weights:
    """Read a weights folder, or a checkpoint of a run folder: the `latest`, the `best` by test error, or a step.

    `where` is a path, a URL for fsspec, or `org/name` of a Hugging Face repository; a run folder is local.
    Raises WeightsError.
    """
    location, header = resolve_folder(where), read_header(where, catalog)
    if not is_run(location):
        return Weights(location=location, header=header, weights=_read_weights(location))
    chosen = chosen_checkpoint(Path(location), checkpoint)
    origin = evolve(header.origin, notes=(*header.origin.notes, f"{_CHECKPOINT}{chosen.path.name}, {chosen.how}"))
    trained = evolve(header.trained or Trained(), steps=chosen.step, selected=chosen.how)
    weights = read_checkpoint(chosen.path)
    return Weights(location=str(chosen.path), header=evolve(header, origin=origin, trained=trained), weights=weights)


def read_header(where: str | Path, catalog: Catalog) -> Header:
    """The header alone, without the weights. Raises WeightsError."""
    location = resolve_folder(where)
    folder = local_folder(location)
    place = f"{location}/{RUN_HEADER if is_run(location) else HEADER}"
    if folder is not None and not Path(place).exists():
        raise WeightsError(_nothing_there(folder))
    header = once_more(lambda: parse_header(_read_header(str(where), place), catalog, place))
    return _completed(header, Path(location)) if is_run(location) else header


def _completed(header: Header, run: Path) -> Header:
    """With the numbers that the data of a run were normalised by, if its data cache alone has them."""
    if not header.normalised or header.datasets:
        return header
    width = len(header.fields.channels)
    found = {item.title: item for item in recovered(run) if len(item.channels) <= width}
    known = tuple(found[title] for title in header.fields.datasets if title in found)
    return evolve(header, datasets=known) if len(known) == len(header.fields.datasets) else header


def _read_header(where: str, place: str) -> bytes:
    try:
        return read_bytes(place)
    except WeightsError as error:
        if not place.startswith("hf://") or "://" in where:
            raise
        raise WeightsError(f"{where}: no such folder here, and no such Hugging Face repository: {error}") from error


def is_run(location: str) -> bool:
    """Whether a resolved location is a run folder."""
    folder = local_folder(location)
    return folder is not None and (folder / RUN_HEADER).exists()


def _nothing_there(path: Path) -> str:
    if path.is_file():
        return f"{path} is a file; a checkpoint that was published is imported first: opframe weights import FILE OUT"
    if not path.exists():
        return f"{path}: no such folder"
    return f"{path} is no weights folder ({WEIGHTS} and {HEADER}), and no run folder with a {RUN_HEADER}"


def _read_weights(location: str) -> dict[str, Tensor]:
    place = f"{location}/{WEIGHTS}"

    def read() -> dict[str, Tensor]:
        with local_copy(place) as path:
            return load_file(path)

    try:
        return once_more(read)
    except SafetensorError as error:
        raise WeightsError(f"{place}: cannot be read as safetensors; truncated? ({error})") from error


def write_folder(header: Header, weights: Mapping[str, Tensor], out: Path) -> None:
    """Write a weights folder, whole or not at all. Raises WeightsError, also when the folder exists."""
    if out.exists():
        raise WeightsError(f"{out} exists; choose another folder")
    partial = out.with_name(f"{out.name}.partial")
    text = header_toml(header)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(_separate(weights), partial / WEIGHTS, metadata={"format": "pt", HEADER: text})
        (partial / HEADER).write_text(text, encoding="utf-8")
        shutil.copymode(partial / HEADER, partial / WEIGHTS)  # safetensors lets nobody but the writer read its file
        os.rename(partial, out)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise WeightsError(f"{out}: cannot be written ({error})") from error


def _separate(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory, as safetensors wants them: a view may be a part of a larger one."""
    seen: set[int] = set()
    result: dict[str, Tensor] = {}
    for name, weight in weights.items():
        tensor = weight.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        result[name] = tensor
    return result


def build_network(weights: Weights) -> nn.Module:
    """The network of a header with its weights, in evaluation mode. Raises WeightsError where they do not fit."""
    with torch.random.fork_rng(devices=[]):  # the fresh weights are overwritten: leave the caller's numbers alone
        network = building.build_network(weights.header.backbone, weights.header.fields)
    check_fit(network.state_dict(), weights.weights, weights.location)
    network.load_state_dict(weights.weights)
    return network.eval()


def check_fit(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], place: str) -> None:
    """Raises WeightsError unless names and shapes are the same, naming the first of those that are not."""
    common = expected.keys() & weights.keys()
    wrong = [
        f"{name} has the shape {tuple(weights[name].shape)}, but {tuple(expected[name].shape)} is needed"
        for name in sorted(common)
        if weights[name].shape != expected[name].shape
    ]
    lines = [
        *_listed("missing", expected.keys() - weights.keys()),
        *_listed("not part of the network", weights.keys() - expected.keys()),
        *wrong[:_SHOWN],
        *([f"and {len(wrong) - _SHOWN} more shapes"] if len(wrong) > _SHOWN else []),
    ]
    if lines:
        raise WeightsError(f"{place}: the weights do not fit the network:" + "".join(f"\n  {line}" for line in lines))


def _listed(what: str, names: Iterable[str]) -> list[str]:
    found = sorted(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return [f"{what}: {', '.join(found[:_SHOWN])}{more}"] if found else []
