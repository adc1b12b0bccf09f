"""One split of PDEBench's files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import evolve

from opframe.files.location import each, find_files
from opframe.readers.arrays import ArrayTrajectories, Part
from opframe.readers.splits import Share, chosen, share
from opframe.readers.stores import Stores
from opframe_pdebench.equations import vectors_of
from opframe_pdebench.layouts import Layout, Quantity, describe
from opframe_pdebench.steady import SteadyTrajectories
from opframe_registry import DataError, Metadata, Split, Trajectories, did_you_mean

if TYPE_CHECKING:
    from opframe_pdebench import PDEBench


def open_pdebench(component: PDEBench, split: Split) -> Trajectories:
    """The trajectories of one split. Raises DataError naming the file and what it holds."""
    url = component.url.replace("{split}", split)
    files = _files(component, url)
    stores = Stores()
    layouts = each(lambda file: stores.ask(file, describe, "pdebench"), files)
    _check_alike(component, files, layouts)
    quantities = _used(component, url, layouts[0].quantities)
    parts = [Part(url=file, count=one.count, first=one.first) for file, one in zip(files, layouts, strict=True)]
    part = share(component, split, url, sum(one.count for one in layouts), separate=url != component.url)
    stored = ArrayTrajectories(
        metadata=_metadata(component, layouts, quantities, part),
        parts=chosen(parts, part),
        variables=[quantity.variable for quantity in quantities],
        stores=stores,
    )
    if layouts[0].steady:
        return SteadyTrajectories(metadata=evolve(stored.metadata, frames=2), solved=stored)
    return stored


def _files(component: PDEBench, url: str) -> list[str]:
    """The files that a URL names, in the order of the numbers in their names."""
    if any(sign in url for sign in "*?["):
        folder, _, pattern = url.rpartition("/")
        found = find_files(folder or ".", pattern)
    elif url.endswith((".h5", ".hdf5")):
        return [url]
    else:
        found = find_files(url, "*.h5") + find_files(url, "*.hdf5")
    if not found:
        raise DataError(f"{component.title}: {url} holds no files *.h5 or *.hdf5 (or does not exist)")
    return sorted(found, key=lambda file: [int(word) if word.isdigit() else word for word in re.split(r"(\d+)", file)])


def _check_alike(component: PDEBench, files: Sequence[str], layouts: Sequence[Layout]) -> None:
    """Raises DataError unless all files hold the same quantities on the same grid over as many frames."""
    alike = [(layout.equation, layout.quantities, layout.grid, layout.frames) for layout in layouts]
    for file, layout, values in zip(files, layouts, alike, strict=True):
        if values != alike[0]:
            raise DataError(
                f"{component.title}: the files under {component.url} differ: {files[0]} holds {_words(layouts[0])}, "
                f"but {file} holds {_words(layout)}; name files of one kind"
            )


def _words(layout: Layout) -> str:
    channels = ", ".join(name for quantity in layout.quantities for name in quantity.names)
    return f"{layout.equation} ({channels}) on {'x'.join(map(str, layout.grid))}, {layout.frames} frames"


def _used(component: PDEBench, url: str, quantities: Sequence[Quantity]) -> list[Quantity]:
    """The quantities that have the channels asked for, in their order. Raises DataError."""
    wanted = component.channels
    if wanted is None:
        return list(quantities)
    have = {name: quantity for quantity in quantities for name in quantity.names}
    for name in wanted:
        if name not in have:
            raise DataError(
                f"{component.title}: channel '{name}' is not among those of {url}, {', '.join(have)}"
                f"{did_you_mean(name, list(have))}"
            )
    used = list({id(have[name]): have[name] for name in wanted}.values())
    together = tuple(name for quantity in used for name in quantity.names)
    if together != wanted:
        raise DataError(
            f"{component.title}: channels = {', '.join(wanted)} cannot be had: components that are stored in one array "
            f"stay together, each once; possible is {', '.join(together)}"
        )
    if all(quantity.input_only for quantity in used):
        raise DataError(f"{component.title}: channels = {', '.join(wanted)} are input only; nothing is left to predict")
    return used


def _metadata(component: PDEBench, layouts: Sequence[Layout], quantities: Sequence[Quantity], part: Share) -> Metadata:
    first = layouts[0]
    channels = tuple(name for quantity in quantities for name in quantity.names)
    return Metadata(
        trajectories=part.count,
        frames=first.frames,
        grid=first.grid,
        channels=channels,
        predicted=tuple(name for quantity in quantities for name in quantity.names if not quantity.input_only),
        units=("",) * len(channels),
        boundary=first.boundary if all(layout.boundary == first.boundary for layout in layouts) else "unknown",
        time_step=first.time_step if all(layout.time_step == first.time_step for layout in layouts) else None,
        spacing=first.spacing if all(layout.spacing == first.spacing for layout in layouts) else None,
        parameters=_parameters(layouts, part),
        source=f"PDEBench, {first.equation} (Takamoto et al., 2022), doi:10.18419/darus-2986",
        license="CC BY 4.0",
        split=part.words,
        vectors=vectors_of(channels),
        conserved=_conserved(layouts, channels),
    )


def _conserved(layouts: Sequence[Layout], channels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What all files conserve, of the quantities whose channels are used."""
    return {
        name: density
        for name, density in layouts[0].conserved.items()
        if set(density) <= set(channels) and all(layout.conserved.get(name) == density for layout in layouts)
    }


def _parameters(layouts: Sequence[Layout], part: Share) -> dict[str, tuple[float, ...]]:
    """Parameters that all files have: one value if it is the same throughout, else one for each trajectory."""
    shared = [name for name in layouts[0].parameters if all(name in layout.parameters for layout in layouts)]
    found = {}
    for name in shared:
        each: list[float] = []
        for layout in layouts:
            values = layout.parameters[name]
            each.extend(values if len(values) == layout.count else values * layout.count)
        values = tuple(each[part.first : part.first + part.count])
        found[name] = values[:1] if len(set(values)) == 1 else values
    return found
