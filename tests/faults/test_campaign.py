"""The campaign of faults: no window is lost, none is repeated, and the weights are those of an undisturbed run.

`pytest -m fault` does all of it; with OPFRAME_FAULTS=FILE its table is written there.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from faults.campaign import KINDS, Bench, Outcome, outcomes
from faults.forked import Forks

HEAD = ("what happens", "injected", "survived", "bit-equal", "windows lost", "windows repeated", "median recovery")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("faults")
    forks = Forks(folder)
    yield Bench(folder, forks, random.Random(0))
    forks.close()


def check(found: list[Outcome]) -> None:
    wrong = [each for each in found if not (each.survived and each.equal) or each.lost or each.repeated or each.wrong]
    assert wrong == []


@pytest.mark.parametrize("kind", [kind for kind, (_, _, few) in KINDS.items() if few])
def test_a_few_faults_of_each_kind_change_nothing(bench: Bench, kind: str) -> None:
    check(list(outcomes(bench, kind, KINDS[kind][2])))


@pytest.mark.fault
@pytest.mark.timeout(3600)
def test_the_whole_campaign(bench: Bench) -> None:
    found = {kind: list(outcomes(bench, kind, many)) for kind, (_, many, _) in KINDS.items()}
    table = "\n".join(lines(found))
    print(table)
    if "OPFRAME_FAULTS" in os.environ:
        Path(os.environ["OPFRAME_FAULTS"]).write_text(f"{table}\n", encoding="utf-8")
    assert sum(len(each) for each in found.values()) >= 200
    check([each for several in found.values() for each in several])


def lines(found: dict[str, list[Outcome]]) -> Iterator[str]:
    yield f"| {' | '.join(HEAD)} |"
    yield "|---" * len(HEAD) + "|"
    every = [each for several in found.values() for each in several]
    for kind, several in {**found, "together": every}.items():
        numbers = [
            len(several),
            sum(each.survived for each in several),
            sum(each.equal for each in several),
            sum(each.lost for each in several),
            sum(each.repeated for each in several),
        ]
        recovery = median([each.seconds for each in several if each.seconds] or [0.0])
        yield f"| {kind} | {' | '.join(map(str, numbers))} | {recovery:.1f} s |"
