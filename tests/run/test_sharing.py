"""A network whose weights processes share trains, is evaluated, saved and continued as one that each has whole."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import Command
from opframe.config.parallel import Parallel
from opframe.processes import Processes
from opframe.run.sharing import blocks_of, shard_size, share
from opframe_pot.settings import MoEPOT
from opframe_registry import ConfigError, Fields
from support import assert_same_training, saved_state

MIXTURE = MoEPOT(width=16, depth=2, heads=2, patch=4, routed_experts=6, chosen_experts=2)
SHARED = ("parallel.strategy=fsdp",)
FROZEN = '\n[[parameters]]\nmatch = ["blocks.0.filter.*"]\nfrozen = true\n'


def run(opframe: Command, experiment: Path, folder: str, processes: int, *words: str) -> Path:
    """A run with its settings, KEY=VALUE, and options."""
    settings = [part for word in words if "=" in word for part in ("--set", word)]
    options = [word for word in words if "=" not in word]
    path = experiment.parent / folder
    done = opframe("run", experiment, "--nproc", processes, "--set", f"run.folder={path}", *settings, *options)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return path


def numbers(folder: Path, kind: str) -> list[dict[str, float]]:
    """What a run has logged of a kind, without the times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    others = ("kind", "time", "samples_per_second", "data_wait", "memory_gb", "save_stall", "save_seconds")
    return [{key: value for key, value in line.items() if key not in others} for line in lines if line["kind"] == kind]


CHAIN = (
    (12, 2, ()),
    (24, 2, (*SHARED, "data.workers=2")),
    (36, 4, ("parallel.strategy=hybrid", "parallel.shard=2", "parallel.checkpoint_activations=true")),
    (44, 3, (*SHARED, "parallel.cpu_offload=true")),
    (50, 1, ("parallel.checkpoint_activations=true",)),
)


def test_a_run_continues_on_any_number_of_processes_and_with_any_strategy(experiment: Path, opframe: Command) -> None:
    settings = ("trainer.steps=50", "trainer.log_every=1", "trainer.evaluate_every=10", "data.validation=1")
    experiment.write_text(experiment.read_text() + '\n[[callbacks]]\ntype = "early_stopping"\npatience = 4\n')
    straight = run(opframe, experiment, "straight", 1, *settings)
    for number, (step, processes, other) in enumerate(CHAIN):
        resumed = ("--resume",) if number else ()
        run(opframe, experiment, "chain", processes, *settings, *other, *resumed, "--stop-at", str(step))
    chain = experiment.parent / "chain"
    one, other = saved_state(straight, 50)["model"], saved_state(chain, 50)["model"]
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert (weight - other[name]).abs().max() <= 1e-5, name
    for kind in ("train", "evaluation", "test"):
        found, expected = numbers(chain, kind), numbers(straight, kind)
        assert len(found) == len(expected)
        for mine, theirs in zip(found, expected, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("backbone", ["moepot", pytest.param("fno", marks=pytest.mark.fault)])
def test_shards_make_the_steps_of_whole_weights_and_resume_to_the_bit(
    experiment: Path, opframe: Command, backbone: str
) -> None:
    """Of frozen weights, experts, and layers whose weights another one uses."""
    changed = experiment.read_text().replace('type = "dpot"', f'type = "{backbone}"')
    if backbone == "fno":
        changed = changed.replace("heads = 2\npatch = 4\n", "modes = [4, 4]\n")
    else:
        changed += FROZEN
    experiment.write_text(changed)
    common = ("trainer.log_every=1", "trainer.accumulate=2", "data.batch_size=9")
    whole = run(opframe, experiment, "whole", 2, *common)
    shared = run(opframe, experiment, "shared", 2, *common, *SHARED)
    for mine, theirs in zip(numbers(shared, "train"), numbers(whole, "train"), strict=True):
        # Adam makes much of roundings of small gradients, and a batch norm over two samples more from step to step
        assert mine == pytest.approx(theirs, rel=1e-5 if mine["step"] <= 3 else 1e-2)
    assert numbers(shared, "test")[0] == pytest.approx(numbers(whole, "test")[0], rel=1e-2)
    run(opframe, experiment, "resumed", 2, *common, *SHARED, "--stop-at", "4")
    resumed = run(opframe, experiment, "resumed", 2, *common, *SHARED, "--resume")
    assert_same_training(resumed, shared, 8)
    assert numbers(resumed, "train") == numbers(shared, "train")


class Blocks(nn.Module):
    """Two blocks of two layers each, and a layer whose weight alone is used."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block() for _ in range(2))
        self.borrowed = nn.ModuleList([nn.Linear(4, 4, bias=False)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return nn.functional.linear(x, self.borrowed[0].weight)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.layers[1](torch.tanh(self.layers[0](x)))


def test_blocks_are_the_outermost_modules_of_lists_that_are_called() -> None:
    network = Blocks()
    assert blocks_of(network, lambda: network(torch.ones(2, 4))) == list(network.blocks)
    assert network.training


def test_activations_that_are_not_kept_are_computed_again_with_the_same_gradients() -> None:
    torch.manual_seed(0)
    network, x = Blocks(), torch.randn(3, 4)
    alone = Processes(rank=0, count=1, device=torch.device("cpu"))
    kept = torch.autograd.grad(network(x).square().sum(), list(network.parameters()))
    share(network, Parallel(checkpoint_activations=True), alone, lambda: network(x))
    before = network.blocks[0].calls
    again = torch.autograd.grad(network(x).square().sum(), list(network.parameters()))
    assert network.blocks[0].calls == before + 2
    assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))
    with pytest.raises(ConfigError, match="this backbone has no blocks"):
        share(nn.Linear(2, 2), Parallel(checkpoint_activations=True), alone, lambda: None)


def test_what_a_block_remembers_of_a_batch_is_remembered_once_where_it_is_computed_twice() -> None:
    x, found = torch.randn(4, 2, 3, 8, 8), []
    for twice in (False, True):
        torch.manual_seed(0)
        network = MIXTURE.build(Fields(channels=("u", "v", "h"), grid=(8, 8), history=2))
        alone = Processes(rank=0, count=1, device=torch.device("cpu"))
        share(network, Parallel(checkpoint_activations=twice), alone, partial(network, x))
        network.train()
        for _ in range(2):
            network.zero_grad()
            torch.autograd.backward(network(x).field.square().sum())
        gradients = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
        found.append({**gradients, **dict(network.named_buffers())})
    once, again = found
    assert once.keys() == again.keys()
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert once["blocks.0.MoE.gating.temperature"] < MIXTURE.temperature


def test_processes_that_cannot_be_grouped_are_told_what_would_do(
    experiment: Path, opframe: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("--set", "parallel.strategy=hybrid", "--set", "parallel.shard=2")
    refused = opframe("run", experiment, "--nproc", 3, *settings)
    assert (refused.returncode, refused.stderr.count("3 processes cannot be grouped by 2; 1, 3 would do")) == (2, 1)
    with pytest.raises(
        ConfigError, match=r"parallel.shard = 4: 6 processes cannot be grouped by 4; 1, 2, 3, 6 would do"
    ):
        shard_size(Parallel(strategy="hybrid", shard=4), 6)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert shard_size(Parallel(strategy="hybrid"), 6) == 3
    with pytest.raises(ValueError, match='cpu_offload is for strategy = "fsdp" or "hybrid"'):
        Parallel(cpu_offload=True)
