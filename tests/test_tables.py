"""A Markdown table has as many cells in a line as headings, whatever stands in them."""

from __future__ import annotations

from rich.console import Console
from rich.markdown import Markdown

from opframe.tables import markdown_table


def test_words_are_on_the_left_and_numbers_on_the_right() -> None:
    assert markdown_table(["run", "error"], "lr", [["one", "0.1"], ["two", "0.22"]]) == [
        "| run | error |",
        "|---|---:|",
        "| one | 0.1 |",
        "| two | 0.22 |",
    ]


def test_a_bar_and_the_end_of_a_line_stay_inside_their_cell() -> None:
    console = Console(width=60, file=None, color_system=None)
    with console.capture() as captured:
        console.print(Markdown("\n".join(markdown_table(["run", "error"], "lr", [["a|b\nc", "0.1"]]))))
    shown = captured.get()
    assert "a|b c" in shown
    assert "0.1" in shown
