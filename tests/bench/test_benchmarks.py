"""Benchmarks: what `opframe bench` says of a config, and that the scripts of the benchmarks run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from benchmarks import growth, side_by_side
from conftest import Command
from opframe.bench.timing import in_turns, spread
from opframe.bench.work import count_work, peak_memory

CPU = torch.device("cpu")
SOLVED = '[[zero_shot]]\ntype = "navier_stokes"\nresolution = 16\nframes = 6\ntrain = 1\ntest = 1\n'


def test_bench_measures_every_step_of_a_run_and_leaves_nothing_behind(experiment: Path, opframe: Command) -> None:
    experiment.write_text(experiment.read_text() + SOLVED)
    folder, out = experiment.parent, experiment.parent / "bench.json"
    (folder / "run").mkdir()
    before = list(folder.rglob("*"))
    words = ("--seconds", 0.01, "--json", out, "--set", "data.workers=1", "--set", "trainer.precision=bfloat16")
    done = opframe("bench", experiment, *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    made = [path for path in folder.rglob("*") if path not in before and folder / "data" not in (path, *path.parents)]
    assert made == [out]  # and in data/ what the run would solve
    found = json.loads(out.read_text())
    rows = {row["name"]: row for row in found["rows"]}
    network = ["training step", "training with the loader", "forward pass", "roll-out of 10 steps"]
    loaders = [f"loader, {title}" for title in ("one", "two", "mixture")]
    assert list(rows) == [*network, "checkpoint", *loaders, "solver, navier_stokes"]
    assert all(name in done.stdout for name in network)
    for row in rows.values():
        seconds = row["seconds"]
        assert 0 < seconds["low"] <= seconds["median"] <= seconds["high"]
    assert rows["training step"]["work"]["flops"] > 2.5 * rows["forward pass"]["work"]["flops"]
    assert rows["roll-out of 10 steps"]["work"]["flops"] < 10 * rows["forward pass"]["work"]["flops"]  # folded once
    assert 0 < rows["forward pass"]["of_product"] < 1
    assert all(ceiling > 1e8 for ceiling in found["ceilings"].values())


def test_bench_says_what_is_wrong_with_its_options(experiment: Path, opframe: Command) -> None:
    done = opframe("bench", experiment, "--seconds", "0")
    assert done.returncode == 2
    assert "0 is not a number above 0" in done.stderr


def test_work_is_counted_forward_and_backward() -> None:
    layer, rows = nn.Linear(32, 64, bias=False), torch.randn(16, 32)
    product = 2 * 16 * 32 * 64

    def forward() -> torch.Tensor:
        output: torch.Tensor = layer(rows)
        return output

    counted = count_work(forward, CPU)
    assert (counted.flops, counted.kernels) == (product, 1)  # the transposed weight is a view
    assert counted.moved == 4 * (16 * 32 + 32 * 64 + 16 * 64)
    assert count_work(lambda: torch.autograd.backward(forward().sum()), CPU).flops == 2 * product


def test_peak_memory_is_the_most_at_a_time() -> None:
    def one_after_another() -> None:
        for _ in range(3):
            torch.empty(1000)

    def together() -> list[torch.Tensor]:
        return [torch.empty(1000) for _ in range(3)]

    assert peak_memory(one_after_another, CPU) == 4000
    assert peak_memory(together, CPU) == 3 * 4000


def test_calls_are_timed_in_turns_after_a_round_that_does_not_count() -> None:
    order: list[str] = []
    times = in_turns([lambda: order.append("a"), lambda: order.append("b")], 0.0, CPU)
    assert [len(column) for column in times] == [3, 3]
    assert order == ["b", "a", "a", "b", "b", "a", "a", "b"]


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    found = spread([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (found.low, found.median, found.high, found.count) == (2.0, 3.0, 4.0, 5)
    assert spread([1.0]).high == 1.0


@pytest.mark.parametrize("script", [side_by_side, growth])
def test_scripts_print_a_table_and_write_json(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    words = ["--small", "--seconds", "0", "--threads", "1", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["script", *words, *(["--together"] if script is side_by_side else [])])
    script.main()
    rows = json.loads(out.read_text())["rows"]
    assert capsys.readouterr().out.count("\n|") == 2 + len(rows)
    assert all(row["error"] <= 1e-5 for row in rows if row.get("error") and "bfloat16" not in row["row"])


def test_growth_is_drawn(tmp_path: Path) -> None:
    points = [
        growth.Point(
            grows="batch", label=str(batch), x=batch, flops=batch, memory=batch, seconds=None if batch > 2 else 1
        )
        for batch in (1, 2, 4)
    ]
    growth.draw(points, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000
