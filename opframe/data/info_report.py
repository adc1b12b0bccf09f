"""What `opframe data info` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from opframe.data.contents import gather, in_words
from opframe.data.info import Recognised, absolute, facts, own_arrays, recognise, together
from opframe.data.selection import Selection, open_part
from opframe_registry import Catalog, DataError, Dataset, Split


def show(component: Dataset, splits: Sequence[Split], selection: Selection, console: Console) -> bool:
    """Print what a dataset is; False if it cannot be opened."""
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


def show_path(where: str, catalog: Catalog, console: Console) -> None:
    """Print which components read what lies at a path or URL, or else what is there. Raises DataError."""
    url = absolute(where)
    contents = gather(url)
    found = recognise(url, contents, catalog)
    for one in found:
        _show_recognised(one, console)
    if not found:
        console.print("no installed component knows this layout; what is there:", highlight=False)
        for line in in_words(contents):
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
        _show_own_arrays(url, contents, console)


def _show_recognised(found: Recognised, console: Console) -> None:
    console.print(f"this looks like [bold]{escape(found.words)}[/bold]; use", highlight=False)
    show_toml(found.snippet, console)
    show(found.component, ["train", "test"], Selection(datasets=(found.component,)), console)


def _show_own_arrays(url: str, contents: dict[str, tuple[int, ...]], console: Console) -> None:
    snippet = own_arrays(url, contents)
    if snippet:
        console.print("say which array it is and what its axes mean (n t c x y z), for example", highlight=False)
        show_toml(snippet, console)


def show_toml(snippet: str, console: Console) -> None:
    """Print tables to be copied into a config."""
    console.print()
    for line in snippet.splitlines():
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    console.print()
