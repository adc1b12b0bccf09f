"""The form of a table of bad inputs, and how each is tried: through the command line, in this process.

A table is a list of `Case`. A test is parametrized over it, `ids=str`, and calls `complain`, which fails unless the
person is told what is expected, without a traceback, with exit code 2, and nothing half-written is left.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import frozen

from opframe.cli.main import main

BEGUN = (
    "run",
    "run/config.toml",
    "run/environment.json",
    "run/data.json",
    "run/model.toml",
    "run/metrics.jsonl",
    "run/events",
    "run/events/*",
    "run/checkpoints",
)
"""What a run may leave that ended as it began: its folder says which experiment it was."""


def nothing(folder: Path) -> None:
    """Leave the small experiment as it is."""


@frozen(kw_only=True)
class Case:
    """One bad input.

    `name` says what is bad, and is the test's id. `arrange` spoils a folder in which `experiment.toml` lies ready to
    run with its data (see the fixture `experiment`); `replace` pairs of a text in that file with what stands there
    instead, and `settings` are given to `--set`. `words` is the command, in which `{folder}` is that folder.
    `expected` are the words that the person is to read.
    """

    name: str
    expected: tuple[str, ...]
    arrange: Callable[[Path], None] = nothing
    replace: tuple[tuple[str, str], ...] = ()
    settings: tuple[str, ...] = ()
    words: tuple[str, ...] = ("check", "{folder}/experiment.toml")
    leaves: tuple[str, ...] = ()
    """Files that the command may leave, whole, as glob patterns relative to the folder."""

    def __str__(self) -> str:
        return self.name


def complain(case: Case, experiment: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Try a case on the small experiment. Returns what was printed to stderr, for further questions."""
    folder = experiment.parent
    text = experiment.read_text(encoding="utf-8")
    for old, new in case.replace:
        assert old in text, f"{case.name}: there is no {old!r} to replace"
        text = text.replace(old, new, 1)
    experiment.write_text(text, encoding="utf-8")
    case.arrange(folder)
    before = set(folder.rglob("*"))
    words = [word.replace("{folder}", str(folder)) for word in case.words]
    with pytest.raises(SystemExit) as ended:
        main([*words, *(word for setting in case.settings for word in ("--set", setting))])
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    for expected in case.expected:
        assert expected.replace("{folder}", str(folder)) in said
    assert "Traceback" not in said
    leaves = (*case.leaves, "run/ended.json")  # in which a run that had begun says what ended it
    allowed = {path for pattern in leaves for path in folder.glob(pattern)}
    assert not set(folder.rglob("*")) - before - allowed
    return said
