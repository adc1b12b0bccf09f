"""`opframe data statistics`: what the data of a run are normalised by, before any run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby

from rich.console import Console

from opframe.console import Preparation, tables_that_fit
from opframe.files.shards import Shard
from opframe.mixture.statistics import Piece, Statistics, Summary
from opframe.tools.work import Pool, done_by


def compute(every: Sequence[Statistics], console: Console, shard: Shard | None, merge: bool, pool: Pool | None) -> None:
    """Compute what the cache does not have: a shard of it, of what shards have left, or all. Raises DataError."""
    with Preparation(console) as progress:
        for statistics in every:
            if shard is not None:
                statistics.summarise(shard, progress)
            elif merge:
                statistics.merge(progress)
            elif pool is None:
                statistics.prepare(progress)
            else:
                statistics.prepare(progress, partial(_summaries, statistics, pool))


def _summaries(statistics: Statistics, pool: Pool) -> list[Summary]:
    """Those of all trajectories, in their order, by workers."""
    pieces = [list(group) for _, group in groupby(statistics.pieces(), key=lambda piece: piece[0])]
    found = dict(done_by(pool, _summary, [(statistics, each) for each in pieces]))
    return [found[place] for place in range(len(pieces))]


def _summary(statistics: Statistics, pieces: list[Piece]) -> Summary:
    return statistics.summary(pieces)


def show(every: Sequence[Statistics], console: Console) -> None:
    """Print what was learnt: a table where there is a number for each channel, and the shapes of other arrays."""
    for statistics in every:
        channels = statistics.source.metadata.channels
        state = statistics.read().state_dict()
        columns = {name: value for name, value in state.items() if value.shape == (len(channels),)}
        rows = [(name, *(f"{float(value[at]):.6g}" for value in columns.values())) for at, name in enumerate(channels)]
        title = f"{statistics.source.title} ({statistics.normalizer.name})"
        for table in tables_that_fit(console, title, ("channel", *columns), rows):
            console.print(table)
        for name in state.keys() - columns.keys():
            console.print(f"  {name}: an array {tuple(state[name].shape)}", highlight=False)
