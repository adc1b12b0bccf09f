"""A global batch is what the experiment says, however many processes and accumulated parts share it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Command
from opframe.mixture.loading import Plan, sample_seed
from opframe_registry import Window

UNEVEN = ("data.batch_size=9", "trainer.log_every=1", "trainer.steps=5", "objective.noise=0.05", "data.workers=1")


class Counted:
    """Windows that say which place of which global batch they have."""

    def __call__(self, seed: int, step: int, size: int) -> list[Window]:
        return [Window(0, step, index) for index in range(size)]


@pytest.mark.parametrize("size", [8, 9, 10, 11])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_every_sample_of_a_batch_has_one_process_and_its_own_noise(size: int, ranks: int) -> None:
    plans = [
        Plan(order=Counted(), seed=3, batch_size=size, rank=rank, ranks=ranks, first=0, last=9) for rank in range(ranks)
    ]
    shares = [plan.samples(5) for plan in plans]
    assert [(sample.window.start, sample.seed) for share in shares for sample in share] == [
        (index, sample_seed(3, 5, index)) for index in range(size)
    ]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def curve(run: Path) -> list[dict[str, float]]:
    """The training losses that a run has logged, and its gradient norms."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    names = ("relative_l2", "gradient_norm")
    return [{name: line[name] for name in names} for line in lines if line["kind"] == "train"]


@pytest.mark.parametrize(
    "others", [((1, 2), (2, 1), (3, 1), (4, 2)), pytest.param(((2, 2), (4, 1)), marks=pytest.mark.fault)]
)
def test_processes_and_parts_that_do_not_divide_a_batch_change_no_loss(
    experiment: Path, opframe: Command, others: tuple[tuple[int, int], ...]
) -> None:
    options = [word for setting in UNEVEN for word in ("--set", setting)]
    curves = {}
    for processes, parts in ((1, 1), *others):
        run = experiment.parent / f"{processes}-{parts}"
        sharing = ("--set", f"trainer.accumulate={parts}", "--nproc", processes)
        done = opframe("run", experiment, *options, *sharing, "--set", f"run.folder={run}")
        assert done.returncode == 0, done.stderr
        curves[processes, parts] = curve(run)
    assert len(curves[1, 1]) == 5
    for sharing, found in curves.items():
        for step, (one, other) in enumerate(zip(curves[1, 1], found, strict=True)):
            assert other == pytest.approx(one, rel=1e-5), (sharing, step)
