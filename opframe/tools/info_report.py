"""What `opframe data info` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from opframe.readers.contents import Shapes, gather, in_words
from opframe.tools.info import absolute, facts, together
from opframe.tools.recognition import Candidate, recognise
from opframe.tools.selection import Selection, open_part, used_splits
from opframe_registry import Catalog, DataError, Dataset, Split

_READINGS = 4  # shown where it is not clear which one is right


def show(component: Dataset, splits: Sequence[Split] | None, selection: Selection, console: Console) -> bool:
    """Print what some splits of a dataset are, or all that training uses; False if it cannot be opened."""
    splits = splits or _known_splits(component)
    only_evaluated = "" if "train" in splits else ", only evaluated"
    console.print(f"[bold]{escape(component.title)}[/bold] ({component.name}{only_evaluated})", highlight=False)
    rows, problems = {}, []
    for split in splits:
        try:
            rows[str(split)] = facts(open_part(component, split, selection), selection.frames)
        except DataError as error:
            problems.append(f"{split}: {error}")
    table = Table.grid(padding=(0, 2), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in together(rows):
        table.add_row(f"  [dim]{escape(name)}[/dim]", escape(words))
    console.print(table, highlight=False)
    for problem in problems:
        console.print(f"  [red]cannot be opened[/red]: {escape(problem)}", highlight=False, soft_wrap=True)
    console.print()
    return not problems


def _known_splits(component: Dataset) -> Sequence[Split]:
    try:
        return used_splits(component)
    except DataError:  # it is said where the training data are opened
        return ("train", "test")


def show_path(where: str, catalog: Catalog, console: Console) -> bool:
    """Print how what lies at a path or URL is read; False if nothing reads it. Raises DataError."""
    url = absolute(where)
    contents = gather(url)
    found = recognise(url, contents, catalog)
    candidates = [candidate for candidate in found if candidate.metadata is not None]
    if not candidates:
        _show_unreadable(contents, found, console)
    elif candidates[0].sure or len(candidates) == 1:
        for candidate in candidates:
            _say(console, f"this looks like [bold]{escape(candidate.layout)}[/bold]")
            _say(console, f"it is read as {candidate.words}, with")
            _show_reading(candidate, console)
    else:
        _show_choice(contents, candidates, console)
    return bool(candidates)


def _show_unreadable(contents: Shapes, found: Sequence[Candidate], console: Console) -> None:
    _show_contents("no installed component reads this; what is there:", contents, console)
    for problem in dict.fromkeys(f"{candidate.component.name}: {candidate.problem}" for candidate in found):
        _say(console, f"  [red]cannot be opened[/red] as {escape(problem)}")


def _show_contents(heading: str, contents: Shapes, console: Console) -> None:
    for line in (heading, *(f"  {line}" for line in in_words(contents) or ["no arrays"])):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _show_choice(contents: Shapes, candidates: Sequence[Candidate], console: Console) -> None:
    """What fits is listed, with the keys that say so, and a person is asked."""
    _show_contents("what is there:", contents, console)
    shown = candidates[:_READINGS]
    _say(console, "nothing in it says what the axes of the array mean. It can be read as, likeliest first:\n")
    keys = [candidate.own(shown) for candidate in shown]
    for number, (candidate, words) in enumerate(zip(shown, keys, strict=True), start=1):
        line = f"  {number}. {words:{max(map(len, keys))}}  {candidate.words}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if len(candidates) > len(shown):
        _say(console, f"  and in {len(candidates) - len(shown)} less likely ways")
    _say(console, "\nWhich is right? Axes are n trajectory, t time, c channel, x y z space. As the first:")
    _show_reading(shown[0], console)


def _show_reading(candidate: Candidate, console: Console) -> None:
    show_toml(candidate.snippet, console)
    alone = candidate.trajectories == 1
    shown: list[Split] = ["test"] if alone else used_splits(candidate.component)
    show(candidate.component, shown, Selection(datasets=(candidate.component,)), console)
    if alone:
        _say(console, "a single trajectory is not enough to train on; more files are read with * in the url")


def _say(console: Console, words: str) -> None:
    console.print(words, highlight=False, soft_wrap=True)


def show_toml(snippet: str, console: Console) -> None:
    """Print tables to be copied into a config."""
    console.print()
    for line in snippet.splitlines():
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    console.print()
