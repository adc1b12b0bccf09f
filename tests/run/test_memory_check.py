"""What a machine cannot hold is refused in words, quickly, before any of it is allocated; what fits is not."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import torch
from torch import nn

from opframe.processes import Processes
from opframe.readers.solved import prepare_solved
from opframe.run import assembly
from opframe.run.experiment import load_experiment
from opframe.run.memory_check import check_batches, check_memory, explained
from opframe.run.memory_estimate import Machine, Network, Step, count_network
from opframe_registry import Catalog, ConfigError, DataError, Dataset, Metadata, PluginError, RunError

ALONE = Processes(rank=0, count=1, device=torch.device("cpu"))
STEP = Step(
    batch_size=8,
    accumulate=2,
    workers=0,
    history=4,
    frames=2,
    horizon=1,
    channels=3,
    grid=(10, 10),
    steps=9,
    processes=1,
    here=1,
)
NOTHING = Network()

REFUSED = {
    "data.batch_size=100000000": "data.batch_size = 100000000: a training step of .* needs at least [0-9.,]+ TB of "
    "memory, and this machine has [0-9.,]+ [GM]B free; [0-9]+ would fit",
    "data.batch_size=1000000000000000000000000": "data.batch_size = 1000000000000000000000000: .* [0-9]+ would fit",
    "data.grid=[100000,100000]": r"data.grid = \[100000, 100000\]: .* on 100000×100000.*; \[[0-9]+, [0-9]+\] would fit",
    "data.history=1000000000": "data.history = 1000000000: .* [0-9]+ would fit",
    "data.channels=1000000000": "data.channels = 1000000000: .* [0-9]+ would fit",
    "objective.frames=1000000000": "objective.frames = 1000000000: .* [0-9]+ would fit",
    "data.horizon=1000000000": "data.horizon = 1000000000: .* [0-9]+ would fit",
    "data.workers=1000000000": "data.workers = 1000000000: this machine lets a process have [0-9,]+ threads",
    "backbone.width=10000000": r"\[backbone\] dpot: a network of 800,00[0-9,]+ .* [0-9,]+ parameters would fit",
    "backbone.width=8000000000000": r"\[backbone\] dpot: the network is larger than any machine",
    "backbone.width=80000000000000000000000": r"\[backbone\] dpot: the network is larger than any machine",
}

RUNS = """
import json, sys, time
from pathlib import Path
from rich.console import Console
from opframe.run.check import check
from opframe.run.experiment import load_experiment
from opframe.run.job import Request, run
from opframe_registry import OpframeError, discover

catalog, answers = discover(), {}
for override in sys.argv[2:]:
    experiment = load_experiment(Path(sys.argv[1]), catalog, [override])
    request = Request(experiment=experiment, catalog=catalog, resume=False, stop_at=None, how_to_continue="")
    for command in (lambda: run(request, Console(quiet=True)), lambda: check(experiment, catalog, Console(quiet=True))):
        began = time.monotonic()
        try:
            command()
            said = "it ran"
        except OpframeError as error:
            said = str(error)
        answers.setdefault(override, []).append([said, time.monotonic() - began])
status = open("/proc/self/status").read()  # getrusage would count what the parent had when it started this process
answers["kilobytes"] = int(status.partition("VmHWM:")[2].split()[0])
print(json.dumps(answers))
"""


def test_what_no_machine_holds_is_refused_with_what_would_fit(experiment: Path) -> None:
    words = [sys.executable, "-c", RUNS, str(experiment), *REFUSED]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=experiment.parent)
    answers = json.loads(done.stdout)
    assert answers.pop("kilobytes") < 10**6
    for override, expected in REFUSED.items():
        for said, seconds in answers[override]:
            assert re.match(expected, said), override
            assert seconds < 10, override
    assert not (experiment.parent / "run").exists()


def test_a_step_that_surely_does_not_fit_is_refused_and_one_that_just_fits_is_not() -> None:
    samples, window = 8 * (4 + 2) * 3 * 100 * 4, STEP.batches() - STEP.batch
    predicted = 4 * 1 * 3 * 100 * 4
    assert STEP.batch == samples
    assert 0 < window < 8 * 200
    need = samples + window + predicted
    assert not STEP.lacks(NOTHING, Machine(memory=need))
    assert "needs at least" in STEP.lacks(NOTHING, Machine(memory=need - 1))
    assert not STEP.lacks(NOTHING, Machine(memory=None))
    with_workers = attrs.evolve(STEP, workers=3)
    assert with_workers.batches() == 7 * samples + window  # two are read ahead for each, one is in use
    assert attrs.evolve(with_workers, steps=2).batches() == 2 * samples + window
    two = attrs.evolve(STEP, processes=2, here=2)
    assert two.batches() == samples + 2 * window
    weights = Network(weights=1000, gradients=predicted + 1000, state=2000)
    assert STEP.lacks(weights, Machine(memory=need + 3999))
    assert not STEP.lacks(weights, Machine(memory=samples + window, gpu=4000 + samples + predicted))
    assert "of GPU memory" in STEP.lacks(weights, Machine(memory=samples + window, gpu=3999 + samples + predicted))


def test_a_network_is_counted_with_its_gradients_and_what_the_optimizer_keeps(
    experiment: Path, catalog: Catalog
) -> None:
    read = load_experiment(experiment, catalog)
    fields = assembly.open_sources(read).fields
    numbers = sum(weight.numel() for weight in assembly.build_backbone(read, fields).parameters())
    assert count_network(read, fields) == Network(weights=4 * numbers, gradients=4 * numbers, state=8 * numbers)
    halved = attrs.evolve(
        read,
        parameters=load_experiment(experiment, catalog, ['parameters=[{match=["blocks"],frozen=true}]']).parameters,
    )
    found = count_network(halved, fields)
    assert found.weights == 4 * numbers
    assert 0 < found.gradients < 4 * numbers
    assert found.state == 2 * found.gradients


def refusal(experiment: Path, catalog: Catalog, overrides: dict[str, str], training: bool = True) -> str:
    """What a config is refused with, with some keys changed; nothing if it is not."""
    read = load_experiment(experiment, catalog, [f"{key}={value}" for key, value in overrides.items()])
    try:
        check_memory(read, assembly.open_sources(read), ALONE, training=training)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"data.batch_size": "64"}, {"data.batch_size", "data.grid"}),
        ({"data.workers": "8", "trainer.steps": "100"}, {"data.batch_size", "data.workers", "data.grid"}),
        ({"data.grid": "[512, 256]", "data.batch_size": "1"}, {"data.grid"}),
        ({"data.channels": "64", "data.batch_size": "1"}, {"data.history", "data.grid"}),
    ],
)
def test_the_numbers_that_are_named_fit_and_larger_ones_do_not(
    experiment: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
    overrides: dict[str, str],
    named: set[str],
) -> None:
    monkeypatch.setattr("opframe.run.memory_check.count_network", lambda *_: NOTHING)
    monkeypatch.setattr("opframe.run.memory_check._check_evaluation", lambda *_: None)  # of the same grid
    monkeypatch.setattr("opframe.run.memory_check.this_machine", lambda _: Machine(memory=250_000))
    said = refusal(experiment, catalog, overrides)
    key, first = said.partition(" = ")[0], said.rpartition("; ")[2].partition(" would fit")[0]
    options = {key: first, **dict(re.findall(r"or (\S+) = ([^,]+|\[.*?\])(?=, or |$)", said))}
    assert options.keys() == named
    for key, value in options.items():
        assert refusal(experiment, catalog, {**overrides, key: value}) == ""
        if value.isdecimal():
            assert refusal(experiment, catalog, {**overrides, key: str(int(value) + 1)}) != ""


def test_so_do_the_numbers_of_trajectories_that_are_rolled_out_together(
    experiment: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opframe.run.memory_check.count_network", lambda *_: NOTHING)
    for free, expected in (
        (120_000, "^$"),
        (100_000, "; 1 would fit"),
        (50_000, "; not even 1 would fit: lower the key"),
    ):
        monkeypatch.setattr("opframe.run.memory_check.this_machine", lambda _, free=free: Machine(memory=free))
        assert re.search(expected, refusal(experiment, catalog, {}, training=False))
        one = refusal(experiment, catalog, {"evaluation.batch_size": "1"}, training=False)
        assert bool(one) == (free < 57_000)


def test_what_fits_is_not_refused(experiment: Path, catalog: Catalog) -> None:
    read = load_experiment(experiment, catalog, ["data.batch_size=4096", "data.workers=64"])
    check_batches(read, 1)
    check_memory(read, assembly.open_sources(read), ALONE)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"trajectories": 10**9}, r"1000000001 trajectories of 20 frames on 64×64 take 32[78] TB on disk, and .* fit"),
        ({"grid": (10**5, 10**5)}, r"4 trajectories of 20 frames on 100000×100000 take 3.2 TB on disk"),
        ({"trajectories": 10**4}, r"16 trajectories of 20 frames on 64×64 are solved together, .* and 1 MB are free"),
    ],
)
def test_data_that_no_disk_or_memory_holds_are_not_solved(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], expected: str
) -> None:
    monkeypatch.setattr("opframe.readers.solved.free_memory", lambda: 10**6)
    monkeypatch.setattr("opframe.readers.solved.free_disk", lambda _: 3 * 10**12)
    component = catalog.get(Dataset, "navier_stokes")()
    usual = Metadata(trajectories=3, frames=20, grid=(64, 64), channels=("w",), predicted=("w",))
    splits = {"train": attrs.evolve(usual, **changes), "test": attrs.evolve(usual, **{**changes, "trajectories": 1})}
    with pytest.raises(DataError, match=f"navier_stokes: {expected}"):
        prepare_solved(component, nn.Identity(), splits.__getitem__, tmp_path, lambda *_: None, together=16)
    assert list(tmp_path.iterdir()) == []


def test_a_solver_that_is_too_large_is_not_made_before_that_is_found_out(catalog: Catalog, tmp_path: Path) -> None:
    component = catalog.get(Dataset, "navier_stokes")(resolution=100_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="on disk"):
        component.prepare(tmp_path, lambda *_: None)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100e3


def test_where_memory_runs_out_all_the_same_it_is_said_what_to_do() -> None:
    for allocate in (lambda: torch.empty(2**45), lambda: bytearray(2**60)):
        with pytest.raises(RunError, match=r"memory ran out \(.*\); raise trainer.accumulate"), explained():
            allocate()
    with pytest.raises(RunError, match=r"memory ran out"), explained():
        raise PluginError("backbone 'dpot': build raised MemoryError") from MemoryError()
    with pytest.raises(RuntimeError, match="shape"), explained():
        torch.zeros(2, 3) @ torch.zeros(2, 3)
