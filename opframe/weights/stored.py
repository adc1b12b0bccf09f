"""Reading what torch.distributed.checkpoint has written, without running anything that a stranger may have put there.

Its metadata are a pickle, and so are the values that are no tensors: only what it writes itself is let through.
"""

from __future__ import annotations

import io
import logging
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import metadata as parts
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.state_dict_loader import load

from opframe.processes import is_of_another
from opframe.weights.location import WeightsError

_ADMITTED = {
    "collections": {"OrderedDict"},
    "pathlib": {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
    "torch": {"Size"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.metadata": {
        name for name in vars(parts) if name.endswith(("Metadata", "Properties", "Meta", "Index", "_ENCODING"))
    },
    "torch.serialization": {"_get_layout"},
}
_SHOWN = 5  # differing tensors that are named


def load_stored(path: Path, state: dict[str, Any], alone: bool) -> None:
    """Read a checkpoint into a state, by one process alone or by all together.

    Raises WeightsError naming the checkpoint, and where it is of another network, what differs.
    """
    with explained(path), _quiet():
        reader = _Reader(path)
        _check(state, reader.read_metadata())
        load(state, storage_reader=reader, planner=_Planner(), no_dist=alone)


def read_metadata(path: Path) -> Metadata:
    """What is in a checkpoint. Raises WeightsError."""
    with explained(path):
        return _Reader(path).read_metadata()


def first_cause(error: BaseException) -> str:
    """What went wrong, in a line, where torch has gathered the errors of several processes.

    Where they could not exchange anything, that is raised as it is: the checkpoint is not to blame.
    """
    failures = list(getattr(error, "failures", {}).values())
    cause = failures[0][0] if failures else error
    if is_of_another(cause):
        raise cause
    return (str(cause).splitlines() or [type(cause).__name__])[0]


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Errors of reading a checkpoint name it. Raises WeightsError."""
    try:
        yield
    except (Exception, CheckpointException) as error:  # bytes that are damaged, or made up, may lead to any
        raise WeightsError(f"{path}: cannot be read ({first_cause(error)}); remove it to use the one before") from error


def _check(state: Mapping[str, Any], metadata: Metadata) -> None:
    """Raises ValueError where tensors are not there, or of other shapes."""
    known = metadata.state_dict_metadata
    different = []
    for name, value in flatten_state_dict(dict(state))[0].items():
        kept = known.get(name)
        if kept is None:
            different.append(f"{name} is not there")
        elif isinstance(value, torch.Tensor) and isinstance(kept, TensorStorageMetadata) and value.shape != kept.size:
            different.append(f"{name} is {tuple(kept.size)} there, {tuple(value.shape)} here")
    if different:
        more = f", and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
        raise ValueError(f"it is of another network or optimizer: {'; '.join(different[:_SHOWN])}{more}")


class _Unpickler(pickle.Unpickler):
    """Makes nothing but what the metadata of a checkpoint consist of."""

    def find_class(self, module: str, name: str) -> Any:
        is_type = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not is_type and name not in _ADMITTED.get(module, ()):
            raise pickle.UnpicklingError(
                f"its metadata ask for {module}.{name}, which no checkpoint has: do not trust it"
            )
        return super().find_class(module, name)


class _Reader(FileSystemReader):
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with self.fs.create_stream(self._get_metadata_path(kwargs.get("rank")), "rb") as file:
            metadata = _Unpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise ValueError("its metadata are something else")
        metadata.storage_meta = metadata.storage_meta or parts.StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Planner(DefaultLoadPlanner):
    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        plain = io.BytesIO()
        torch.save(torch.load(value, weights_only=True), plain)  # what torch reads then is what was let through
        plain.seek(0)
        super().load_bytes(read_item, plain)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warning that one process loads as one process, and its own account of errors."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            yield
    finally:
        logging.disable(before)
