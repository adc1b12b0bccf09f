"""The chunks of local HDF5 files as they are stored."""

from __future__ import annotations

from itertools import product

import h5py

from opframe.files.location import is_local
from opframe.readers.arrays import ArrayTrajectories
from opframe_registry import Trajectories


def read_stored_chunks(trajectories: Trajectories, trajectory: int, start: int, stop: int) -> int | None:
    """Read the bytes of the chunks that hold frames [start, stop), without decoding them, and say how many there are.

    None if these data are not stored in chunks that HDF5 decodes.
    """
    if not isinstance(trajectories, ArrayTrajectories) or not is_local(trajectories.parts[0].url):
        return None
    url, _, wanted = trajectories.place(trajectory, start, stop)
    arrays = [(trajectories.stores.array(url, path), index) for path, index in wanted]
    encoded = [(array, index) for array, index in arrays if isinstance(array, h5py.Dataset) and _filtered(array)]
    return sum(_read(dataset, index) for dataset, index in encoded) if encoded else None


def _filtered(dataset: h5py.Dataset) -> bool:
    return dataset.chunks is not None and dataset.id.get_create_plist().get_nfilters() > 0


def _read(dataset: h5py.Dataset, index: tuple[int | slice, ...]) -> int:
    edges = [
        range(part, part + 1) if isinstance(part, int) else range(*part.indices(size))
        for part, size in zip(index, dataset.shape, strict=True)
    ]
    corners = [
        range(edge.start // side * side, edge.stop, side) for edge, side in zip(edges, dataset.chunks, strict=True)
    ]
    places = [place for place in product(*corners) if dataset.id.get_chunk_info_by_coord(place).byte_offset is not None]
    return sum(len(dataset.id.read_direct_chunk(place)[1]) for place in places)
