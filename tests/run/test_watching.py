"""What loggers get beside losses is right: of each dataset, of the share that is drawn, of the experts, of jumps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import Command
from opframe.run.watching import Jumps
from weights_support import Call


def entries(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "train"]


def test_losses_of_datasets_add_up_and_are_those_of_several_processes_and_parts(
    experiment: Path, cli: Call, opframe: Command
) -> None:
    run = experiment.parent / "run"
    each_step = ("--set", "trainer.log_every=1", "--set", "data.batch_size=5")
    assert cli("run", experiment, *each_step).code == 0
    found = entries(run)
    for line in found:
        parts = [(line[f"drawn/{title}"], line.get(f"by_dataset/relative_l2/{title}", 0.0)) for title in ("one", "two")]
        assert sum(share for share, _ in parts) == pytest.approx(1)
        assert sum(share * loss for share, loss in parts) == pytest.approx(line["relative_l2"], rel=1e-6)
        assert (line["target/one"], line["target/two"]) == pytest.approx((1 / 3, 2 / 3))
        assert 0 < line["memory_gb"] < 100
        assert 0 <= line["data_wait"] <= 1
    assert len({line["drawn/one"] for line in found}) > 1
    several = run.with_name("several")
    words = ("run", experiment, *each_step, "--set", "trainer.accumulate=2", "--nproc", 2)
    assert opframe(*words, "--set", f"run.folder={several}").returncode == 0
    for one, two in zip(found, entries(several), strict=True):
        names = [name for name in one if name.startswith(("by_dataset/", "drawn/", "target/"))]
        assert [two[name] for name in names] == pytest.approx([one[name] for name in names], rel=1e-4)


def test_a_mixture_of_experts_tells_how_its_experts_are_used(experiment: Path, cli: Call) -> None:
    experts = ("routed_experts=4", "chosen_experts=2", "depth=2", "heads=2", "patch=4", "width=32")
    text = experiment.read_text()
    start, end = text.index("[backbone]"), text.index("[objective]")
    keys = "\n".join(each.replace("=", " = ") for each in experts)
    experiment.write_text(f'{text[:start]}[backbone]\ntype = "moepot"\n{keys}\n{text[end:]}')
    done = cli("run", experiment)
    assert done.code == 0, done.errors
    last = entries(experiment.parent / "run")[-1]
    for block in range(2):
        most, least, entropy = (
            last[f"blocks.{block}.MoE.gating/{name}"] for name in ("largest_load", "smallest_load", "entropy")
        )
        assert 1 / 4 <= most <= 1
        assert 0 <= least <= 1 / 4
        assert 0 <= entropy <= 1


def test_a_loss_that_leaps_up_is_said_once() -> None:
    jumps = Jumps()
    said = [jumps.remark(step, loss) for step, loss in enumerate([1.0] * 20 + [37.0, 40.0, 1.0, 9.0, 12.0])]
    assert [step for step, words in enumerate(said) if words] == [20, 24]
    assert said[20] == (
        "step 20: the loss is 37, 37 times its median of late; the callback 'rescue' leaves such steps out"
    )


def test_a_jump_is_printed_by_the_run(experiment: Path, cli: Call) -> None:
    steep = ("optimizer.learning_rate=30", "trainer.log_every=1", "trainer.steps=40", "schedule.type=one_cycle")
    words = [word for each in steep for word in ("--set", each)]
    done = cli("run", experiment, *words)
    assert "times its median of late; the callback 'rescue' leaves such steps out" in done.output
