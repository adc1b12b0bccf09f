"""Which trajectories validation goes by: those that the data come with, or some of training that are held out."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from opframe.console import counted, few
from opframe.mixture.source import Source
from opframe_registry import DataError


def held_out(wanted: float, count: int) -> tuple[int, ...]:
    """The places of `wanted` (a number or, below 1, a share of at least one) among `count` trajectories.

    They are spread evenly, since published trajectories often lie in the order of a parameter, or of the runs that made
    them: the last ones would be of one kind. Nothing but the two numbers decides. Raises ValueError unless some are
    left.
    """
    number = max(round(wanted * count), 1) if 0 < wanted < 1 else int(wanted)
    if number >= count and number > 0:
        raise ValueError(f"holds out {number} of {counted(count, 'trajectory')}, which leaves nothing to train on")
    return tuple((2 * index + 1) * count // (2 * number) for index in range(number))


def hold_out(source: Source, own: int | None, everywhere: float) -> tuple[Source, Source | None]:
    """What is left of a dataset for training, and what validation goes by; None: nothing.

    `own` is the dataset's key `validation`, which overrides that of `[data]`. Raises DataError where nothing would be
    left.
    """
    count = source.metadata.trajectories
    try:
        places = held_out(everywhere if own is None else own, count)
    except ValueError as error:
        whose = f"data.validation = {everywhere:g}" if own is None else f"validation = {own}"
        raise DataError(f"{source.title}: {whose} {error}; lower it, or set validation = 0 of this dataset") from error
    if not places:
        return source, None
    numbers = tuple(source.number(place) for place in places)
    others = sorted({*range(source.trajectories.metadata.trajectories)} - {*numbers})
    return evolve(source, held_out=numbers), evolve(source, excluded=tuple(others), short=())


def in_words(sources: Sequence[Source], validation: Sequence[Source]) -> list[str]:
    """One line for each dataset that is trained on, for the log; none where nothing has validation data."""
    by = {source.title: source for source in validation}
    return [f"{one.title}: {_of(one, by.get(one.title))}" for one in sources] if validation else []


def _of(source: Source, validation: Source | None) -> str:
    if validation is None:
        return "no validation"
    count = validation.metadata.trajectories
    if not source.held_out:
        return f"validation by {counted(count, 'trajectory')} of its validation split"
    whole, numbers = count + source.metadata.trajectories, few(source.held_out)
    return f"validation by {count} of {whole} training trajectories, held out: {numbers}"
