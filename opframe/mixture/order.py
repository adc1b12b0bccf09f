"""Batches of which each has one grid, for data that are not resized."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from attrs import evolve, field, frozen
from numpy.typing import NDArray

from opframe.mixture.resizing import Grid
from opframe_registry import Order, Population, Window

_BLOCK = 1024  # steps whose grids are drawn at once


@frozen(kw_only=True)
class Group:
    """The datasets of one grid, by their numbers in the mixture, and the order of their windows among themselves."""

    datasets: tuple[int, ...]
    order: Order


@frozen(kw_only=True)
class _Block:
    """Steps number·_BLOCK and on: the group of each, and how many batches every group had before them."""

    seed: int
    number: int
    groups: NDArray[np.intp]
    before: NDArray[np.intp]


def order_by_grid(
    build: Callable[[Sequence[Population]], Order], populations: Sequence[Population], grids: Sequence[Grid]
) -> Order:
    """The order that a sampler builds, made to give every batch one grid. Raises what `build` raises."""
    mixture = build(populations)
    numbers = [tuple(number for number, own in enumerate(grids) if own == grid) for grid in dict.fromkeys(grids)]
    if len(numbers) == 1:
        return mixture
    groups = [Group(datasets=own, order=build([populations[number] for number in own])) for own in numbers]
    return GridOrder(mixture=mixture, groups=tuple(groups))


@frozen(kw_only=True)
class GridOrder:
    """Global batches that each come from the datasets of one group, drawn by a sampler that knows nothing of groups.

    The group of batch number `step` is the one of window number `step` of an order over the whole mixture: so every
    dataset has the share of all samples that the sampler means it to have. Within its group a batch is drawn by the
    group's own order, which sees the group's batches numbered one after the other, and so leaves none of them out.
    """

    mixture: Order
    groups: tuple[Group, ...]

    @property
    def shares(self) -> Sequence[float] | None:
        """What part of all samples each dataset has, where the sampler says it."""
        return getattr(self.mixture, "shares", None)

    _latest: list[_Block] = field(factory=list, init=False, eq=False, repr=False)
    """The block that was asked for last: only to save time, as blocks are counted from the first on."""

    def __call__(self, seed: int, step: int, size: int) -> Sequence[Window]:
        """The `size` windows of global batch number `step`, all of one grid."""
        block = self._block(seed, step // _BLOCK)
        index = block.groups[step % _BLOCK]
        own_step = block.before[index] + np.count_nonzero(block.groups[: step % _BLOCK] == index)
        group = self.groups[index]
        windows = group.order(_seed(seed, 1 + int(index)), int(own_step), size)
        return [evolve(window, dataset=group.datasets[window.dataset]) for window in windows]

    def _block(self, seed: int, number: int) -> _Block:
        latest = self._latest[0] if self._latest else None
        if latest is None or latest.seed != seed or latest.number > number:
            latest = self._drawn(seed, 0, np.zeros(len(self.groups), np.intp))
        while latest.number < number:
            counts = np.bincount(latest.groups, minlength=len(self.groups))
            latest = self._drawn(seed, latest.number + 1, latest.before + counts)
        self._latest[:] = [latest]
        return latest

    def _drawn(self, seed: int, number: int, before: NDArray[np.intp]) -> _Block:
        group_of = {dataset: index for index, group in enumerate(self.groups) for dataset in group.datasets}
        windows = self.mixture(_seed(seed, 0), number, _BLOCK)
        groups = np.array([group_of[window.dataset] for window in windows])
        return _Block(seed=seed, number=number, groups=groups, before=before)


def _seed(seed: int, purpose: int) -> int:
    """A seed of its own for each of the orders: their draws have nothing to do with each other."""
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)[0] >> np.uint64(1))
