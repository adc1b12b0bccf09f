"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_RULES = {"l": "---", "r": "---:"}


def markdown_table(headings: Sequence[str], alignment: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table. `alignment` has a letter for each column: l for words on the left, r for numbers.

    What would end a cell or a line is written so that it does not.
    """
    rules = "|".join(_RULES[letter] for letter in alignment)
    return [_line(headings), f"|{rules}|", *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    written = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(written)} |"
