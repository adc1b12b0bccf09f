"""How much time it saves to compute only the experts that samples choose.

Compares MoE-POT with the same network that evaluates every routed expert on every sample and multiplies what was not
chosen by zero, as the published code does. Timed are the routed experts of one block alone, forward and with backward,
the forward pass of the network in evaluation, and a training step with Adam. Samples of one dataset choose the same
experts, samples of several choose different ones; here the choice is imposed. Both ways run in turns in one process.

    OMP_NUM_THREADS=1 python benchmarks/moe_routing.py --size tiny --batches 4 8 16 32 --json moe_routing.json
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
from attrs import asdict, frozen
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from opframe.layers.patch_transformer import Mixed
from opframe_moepot import MoEPOT
from opframe_moepot.experts import weighted_experts
from opframe_moepot.gate import Routing
from opframe_moepot.network import Block, Mixture
from opframe_registry import Fields

Action = Callable[[], object]
WORK = ("experts forward", "experts + backward", "network forward", "training step")


@frozen(kw_only=True)
class Row:
    """Milliseconds of one piece of work in both ways, medians, and the median of the ratios of every round."""

    work: str
    batch: int
    datasets: int
    experts: int
    sparse: float
    dense: float
    ratio: float


class ImposedGate(nn.Module):
    """Does the work of a gate, but chooses the given experts."""

    def __init__(self, gate: nn.Module, chosen: Tensor) -> None:
        super().__init__()
        self.gate, self.chosen = gate, chosen

    def forward(self, f: Tensor) -> Routing:
        """(B, X', Y', H) -> Routing."""
        routing: Routing = self.gate(f)
        return routing._replace(chosen=self.chosen)


class EveryExpert(nn.Module):
    """A mixture that evaluates all of its experts."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.mixture = mixture

    def forward(self, z: Tensor) -> Mixed:
        """(B, X', Y', D) -> the same."""
        f = self.mixture.feature_extractor(z)
        routing: Routing = self.mixture.gating(f)
        shared = torch.stack([expert(f) for expert in self.mixture.shared_experts]).mean(0)
        tokens = shared + every_expert(self.mixture.experts, f, routing.chosen, routing.shares)
        return Mixed(tokens=tokens, penalties={} if routing.imbalance is None else {"balance": routing.imbalance})


def every_expert(experts: nn.ModuleList, f: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
    """What `weighted_experts` computes, of all experts."""
    every = shares.new_zeros(len(f), len(experts)).scatter(1, chosen, shares)
    total = torch.zeros(())
    for index, expert in enumerate(experts):
        total = total + expert(f) * every[:, index, None, None, None]
    return total


def main() -> None:
    """Measure, print the table, and write it as JSON if asked to."""
    options = _options()
    settings = MoEPOT(size=options.size, **MoEPOT.presets[options.size])
    rows: list[Row] = []
    for batch in options.batches:
        for datasets in (1, 4):
            torch.manual_seed(0)
            chosen = choices(settings, batch, datasets)
            rows += [*experts_alone(settings, options, chosen, datasets), *network(settings, options, chosen, datasets)]
    _print(rows, f"{options.size}, grid {options.grid}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="tiny", choices=list(MoEPOT.presets))
    parser.add_argument("--grid", type=int, default=128, help="points along each side")
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def choices(settings: MoEPOT, batch: int, datasets: int) -> Tensor:
    """The experts of every sample, (B, K), alike for samples of one dataset."""
    of_dataset = [torch.randperm(settings.routed_experts)[: settings.chosen_experts] for _ in range(datasets)]
    return torch.stack([of_dataset[sample % datasets] for sample in range(batch)])


def experts_alone(settings: MoEPOT, options: argparse.Namespace, chosen: Tensor, datasets: int) -> list[Row]:
    """The routed experts of one block, forward alone and with backward."""
    experts = Mixture(settings, 2).experts
    side = options.grid // settings.patch
    f = torch.randn(len(chosen), side, side, settings.hidden, requires_grad=True)
    shares = torch.rand(chosen.shape, requires_grad=True)
    probe = torch.randn(*f.shape[:-1], settings.width)
    ways = [partial(way, experts, f, chosen, shares) for way in (weighted_experts, every_expert)]
    _check(*(way().detach() for way in ways))

    def backward(way: Callable[[], Tensor]) -> None:
        torch.autograd.backward(way(), probe)

    with torch.no_grad():
        forward = _compare(WORK[0], chosen, datasets, options.rounds, ways)
    return [forward, _compare(WORK[1], chosen, datasets, options.rounds, [partial(backward, way) for way in ways])]


def network(settings: MoEPOT, options: argparse.Namespace, chosen: Tensor, datasets: int) -> list[Row]:
    """The whole network: forward in evaluation, and a training step."""
    ours = settings.build(_fields(options.grid)).eval()
    for block in _blocks(ours):
        block.MoE.add_module("gating", ImposedGate(block.MoE.gating, chosen))
    theirs = copy.deepcopy(ours)
    for block in _blocks(theirs):
        block.add_module("MoE", EveryExpert(block.MoE))
    u = torch.randn(len(chosen), 10, 4, options.grid, options.grid)
    with torch.no_grad():
        _check(ours(u).field, theirs(u).field)
        forward = _compare(WORK[2], chosen, datasets, options.rounds, [partial(net, u) for net in (ours, theirs)])
    steps = [_training_step(net.train(), u) for net in (ours, theirs)]
    return [forward, _compare(WORK[3], chosen, datasets, options.rounds, steps)]


def _blocks(net: nn.Module) -> list[Block]:
    return [module for module in net.modules() if isinstance(module, Block)]


def _fields(grid: int) -> Fields:
    return Fields(channels=("u", "v", "p", "rho"), grid=(grid, grid), history=10)


def _training_step(net: nn.Module, u: Tensor) -> Action:
    optimizer = torch.optim.Adam(net.parameters(), fused=True)

    def step() -> None:
        prediction = net(u)
        (prediction.field.square().mean() + prediction.penalties["balance"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _check(sparse: Tensor, dense: Tensor) -> None:
    error = float((sparse - dense).norm() / dense.norm())
    if error > 1e-5:
        raise SystemExit(f"the two ways differ by {error:.1e}")


def _compare(work: str, chosen: Tensor, datasets: int, rounds: int, ways: Sequence[Action]) -> Row:
    """Time both ways in turns, after one round that does not count."""
    times = [[_milliseconds(way) for way in ways] for _ in range(rounds + 1)][1:]
    sparse, dense = (median(column) for column in zip(*times, strict=True))
    return Row(
        work=work,
        batch=len(chosen),
        datasets=datasets,
        experts=len(set(chosen.flatten().tolist())),
        sparse=sparse,
        dense=dense,
        ratio=median(theirs / ours for ours, theirs in times),
    )


def _milliseconds(action: Action) -> float:
    start = time.perf_counter()
    action()
    return 1e3 * (time.perf_counter() - start)


def _print(rows: Sequence[Row], title: str) -> None:
    table = Table(title=f"Only the chosen experts, against all of them\n{title}")
    for name in ("work", "batch", "datasets", "in use", "chosen ms", "all ms", "ratio"):
        table.add_column(name, justify="left" if name == "work" else "right", no_wrap=True)
    for row in sorted(rows, key=lambda row: (WORK.index(row.work), row.datasets, row.batch)):
        counts = (str(row.batch), str(row.datasets), str(row.experts))
        table.add_row(row.work, *counts, f"{row.sparse:.1f}", f"{row.dense:.1f}", f"{row.ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
