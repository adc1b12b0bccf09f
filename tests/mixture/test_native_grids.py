"""With `data.resize = "native"` every batch has one grid, nothing is resized, and all else stays as it is."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from conftest import Command
from opframe.config.building import build_metric
from opframe.config.settings import Experiment
from opframe.evaluation.protocol import Evaluator
from opframe.mixture.loading import batches, make_loader
from opframe.mixture.order import GridOrder, order_by_grid
from opframe.mixture.source import evaluation_mask, read_frames
from opframe.processes import Processes
from opframe.run import assembly
from opframe.run.check import check
from opframe.run.experiment import load_experiment
from opframe.run.job import Request, run
from opframe.tools.packing_plan import plan
from opframe.tools.selection import load_selection, open_part
from opframe_baselines import Persistence
from opframe_fno import FNO
from opframe_metrics import RelativeL2
from opframe_registry import (
    Backbone,
    Catalog,
    Conditions,
    ConfigError,
    Fields,
    Order,
    Population,
    Prediction,
    Sampler,
    Window,
)
from opframe_sampling import Balanced, Proportional
from opframe_unet import UNet
from support import ROOT, assert_same_training, saved_state, waves, write_prepared
from tests.plugins.test_sampling import assert_frequencies

COARSE, FINE = (16, 16), (24, 24)
POPULATIONS = (
    Population(starts=(4,) * 3, weight=1.0),
    Population(starts=(10,) * 20, weight=3.0),
    Population(starts=(1,) * 5, weight=0.5),
    Population(starts=(2, 1, 9), weight=2.0),
)
GRIDS = (COARSE, FINE, COARSE, (8, 8))
SETTINGS = """
[backbone]
type = "fno"
width = 8
depth = 1
modes = [4]
"""


@pytest.fixture
def native(experiment: Path) -> Path:
    """The small experiment with its second dataset on a finer grid, not resized."""
    write_prepared(experiment.parent / "two.h5", waves(6, 10, FINE[0], channels=2))
    text = experiment.read_text().replace("batch_size = 4", 'batch_size = 4\nresize = "native"')
    start, stop = text.index("[backbone]"), text.index("[objective]")
    experiment.write_text(text[:start] + SETTINGS + text[stop:])
    return experiment


def loaded(path: Path, catalog: Catalog, *overrides: str) -> Experiment:
    return load_experiment(path, catalog, overrides)


def evaluator(sources: assembly.Sources) -> Evaluator:
    alone = Processes(rank=0, count=1, device=torch.device("cpu"))
    metrics = (build_metric(RelativeL2(), sources.fields),)
    baselines = {"persistence": Persistence()}
    return Evaluator(
        sources=sources.test,
        zero_shot=(),
        fields=sources.fields,
        processes=alone,
        batch_size=2,
        metrics=metrics,
        baselines=baselines,
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_every_batch_has_one_grid_and_the_values_of_the_files(native: Path, catalog: Catalog, workers: int) -> None:
    experiment = loaded(native, catalog)
    sources = assembly.open_sources(experiment)
    order = assembly.build_order(experiment, sources.train)
    plan = assembly.training_plan(experiment, order, 0, 1, range(40))
    loader = make_loader(assembly.training_windows(experiment, sources), plan, workers, pin=False)
    seen: Counter[tuple[int, ...]] = Counter()
    for batch, addresses in zip(batches(loader), plan, strict=True):
        frames = torch.cat([batch.inputs, batch.targets], 1)
        seen[frames.shape[3:]] += 1
        assert batch.dataset.tolist() == [address.window.dataset for address in addresses]
        for sample, window in zip(frames, [address.window for address in addresses], strict=True):
            own = sources.train[window.dataset].read(window.trajectory, window.start, window.start + len(sample))
            assert torch.equal(sample[:, : own.shape[1]], torch.from_numpy(own.copy()))
            assert (sample[:, own.shape[1] :] == 1).all()
    assert seen.keys() == {COARSE, FINE}


@pytest.mark.parametrize("sampler", [Balanced(), Proportional()], ids=lambda sampler: sampler.name)
def test_every_dataset_is_drawn_as_often_as_without_groups(sampler: Sampler) -> None:
    """Groups by chi-square over batches, which are drawn independently; datasets of a group over its samples."""
    order, size = order_by_grid(sampler.build, POPULATIONS, GRIDS), 8
    drawn = [order(5, step, size) for step in range(4000)]
    windows = [sum(population.starts) for population in POPULATIONS]
    weights = [population.weight for population in POPULATIONS] if isinstance(sampler, Balanced) else windows
    share = {dataset: weight / sum(weights) for dataset, weight in enumerate(weights)}
    grids: dict[object, float] = {grid: sum(share[n] for n in share if GRIDS[n] == grid) for grid in set(GRIDS)}
    assert_frequencies(Counter[object](GRIDS[batch[0].dataset] for batch in drawn), grids)
    inside = Counter[object](w.dataset for batch in drawn for w in batch if GRIDS[w.dataset] == COARSE)
    assert_frequencies(inside, {n: share[n] / grids[COARSE] for n in (0, 2)})
    alone = Counter[object](w.trajectory for batch in drawn for w in batch if w.dataset == 3)
    of_three = (1 / 3,) * 3 if isinstance(sampler, Balanced) else (2 / 12, 1 / 12, 9 / 12)
    assert_frequencies(alone, dict(enumerate(of_three)))


def test_datasets_of_one_grid_are_drawn_as_with_any_other_way_of_resizing() -> None:
    plain, grouped = Balanced().build(POPULATIONS), order_by_grid(Balanced().build, POPULATIONS, [COARSE] * 4)
    assert all(plain(3, step, 5) == grouped(3, step, 5) for step in range(50))


def test_the_order_depends_on_its_address_alone() -> None:
    order = order_by_grid(Balanced().build, POPULATIONS, GRIDS)
    steps = (0, 5000, 3, 1023, 1024, 2047, 2048, 4999, 0)
    drawn = [order(9, step, 4) for step in steps]
    assert [order_by_grid(Balanced().build, POPULATIONS, GRIDS)(9, step, 4) for step in steps] == drawn
    assert pickle.loads(pickle.dumps(order))(9, 1024, 4) == drawn[4]
    other = [order_by_grid(Balanced().build, POPULATIONS, GRIDS)(10, step, 4) for step in range(1024, 1040)]
    assert [order(10, step, 4) for step in range(1024, 1040)] == other
    assert len({tuple(order(seed, step, 16)) for seed in range(4) for step in range(4)}) == 16
    early, late = ([order(9, step, 1)[0].dataset for step in range(first, first + 30)] for first in (0, 1024))
    assert [GRIDS[dataset] for dataset in early] != [GRIDS[dataset] for dataset in late]


@attrs.frozen
class Epochs:
    """Goes through all windows without replacement, in one and the same order."""

    populations: tuple[Population, ...]

    def __call__(self, seed: int, step: int, size: int) -> Sequence[Window]:
        every = [
            Window(dataset, trajectory, start)
            for dataset, population in enumerate(self.populations)
            for trajectory in range(population.trajectories)
            for start in range(population.starts[trajectory])
        ]
        return [every[number % len(every)] for number in range(step * size, (step + 1) * size)]


def test_a_sampler_that_goes_through_epochs_leaves_no_window_out_and_draws_none_twice() -> None:
    order: Order = order_by_grid(lambda populations: Epochs(tuple(populations)), POPULATIONS, GRIDS)
    drawn = {grid: Counter[Window]() for grid in GRIDS}
    for step in range(3000):  # over two ends of the blocks in which grids are drawn
        windows = order(0, step, 4)
        assert len({GRIDS[window.dataset] for window in windows}) == 1
        drawn[GRIDS[windows[0].dataset]].update(windows)
    for grid, counts in drawn.items():
        own = [population for population, each in zip(POPULATIONS, GRIDS, strict=True) if each == grid]
        assert len(counts) == sum(sum(population.starts) for population in own)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_dataset_without_windows_is_refused_by_its_place_in_the_mixture() -> None:
    short = Population(starts=(), weight=1.0)
    with pytest.raises(ConfigError, match=r"datasets\[3\] has no window"):
        order_by_grid(Balanced().build, [*POPULATIONS[:3], short], GRIDS)


def trained(path: Path, catalog: Catalog, folder: str, *overrides: str, **options: Any) -> None:
    """A run in this process, into a folder beside the config."""
    experiment = loaded(path, catalog, f"run.folder={path.parent / folder}", *overrides)
    request = {"experiment": experiment, "catalog": catalog, "resume": False, "stop_at": None, "how_to_continue": ""}
    run(Request(**{**request, **options}), Console(quiet=True))


def test_resuming_in_the_middle_and_two_processes_give_the_same_weights(
    native: Path, catalog: Catalog, opframe: Command
) -> None:
    """On one process to the last bit; on two, which share every batch, up to rounding."""
    folder = native.parent
    trained(native, catalog, "straight", "evaluation.figures=true")
    trained(native, catalog, "run", "data.workers=2", stop_at=5)
    trained(native, catalog, "run", "data.workers=2", resume=True)
    assert_same_training(folder / "run", folder / "straight", 8)
    two = opframe("run", native, "--nproc", 2, "--set", f"run.folder={folder / 'two'}")
    assert two.returncode == 0, two.stderr
    one, both = (saved_state(folder / name, 8)["model"] for name in ("straight", "two"))
    for name, weight in one.items():
        assert (weight - both[name]).norm() <= 1e-4 * weight.norm() + 1e-6, name
    reports = [json.loads((folder / name / "report.json").read_text())["datasets"] for name in ("straight", "two")]
    for alone, shared in zip(*reports, strict=True):
        assert alone["scores"]["model"]["full"] == pytest.approx(shared["scores"]["model"]["full"], rel=1e-3)
    assert "every dataset on its own grid, a network made for 16x16" in (folder / "straight" / "report.md").read_text()
    assert (folder / "straight" / "figures" / "rollout_two.png").exists()


@pytest.mark.parametrize("normalization", ["none", "dataset"])
def test_evaluation_is_that_of_each_dataset_alone_at_its_own_grid(
    native: Path, catalog: Catalog, normalization: str
) -> None:
    settings = (f"normalizer.type={normalization}", f"data.cache={native.parent / 'cache'}")
    experiment = loaded(native, catalog, *settings)
    assembly.prepare_data(experiment, lambda *_: None)
    sources = assembly.open_sources(experiment)
    backbone = assembly.build_backbone(experiment, sources.fields)
    together = evaluator(sources).evaluate(backbone)
    for number, grid in ((0, COARSE), (1, FINE)):
        resized = loaded(native, catalog, *settings, "data.resize=bilinear", f"data.grid={list(grid)}")
        alone = assembly.open_sources(resized)
        network = assembly.build_backbone(resized, alone.fields)
        network.load_state_dict(backbone.state_dict())
        assert evaluator(alone).evaluate(network).datasets[number] == together.datasets[number]


def test_errors_count_at_every_point_of_data_that_are_not_resized(native: Path, catalog: Catalog) -> None:
    sources = assembly.open_sources(loaded(native, catalog))
    source = sources.test[1]
    mask = evaluation_mask(source.metadata, source.seen(sources.fields))
    assert mask.shape == (2, *FINE)
    assert mask.all()


def test_data_of_any_grid_are_normalised_by_their_own_statistics(native: Path, catalog: Catalog) -> None:
    cache = native.parent / "cache"
    experiment = loaded(native, catalog, "normalizer.type=dataset", f"data.cache={cache}")
    assembly.prepare_data(experiment, lambda *_: None)
    sources = assembly.open_sources(experiment)
    source = sources.train[1]
    values = np.stack([source.read(number, 0, 10) for number in range(4)]).astype("f8")
    known = {name: value.tolist() for name, value in source.normalization.state_dict().items()}
    assert known == {
        "mean": pytest.approx(values.mean((0, 1, 3, 4)), abs=1e-9),
        "deviation": pytest.approx(values.std((0, 1, 3, 4)), rel=1e-9),
    }
    frames = torch.stack([read_frames(source, number, 0, 10, sources.fields) for number in range(4)])
    assert frames.shape == (4, 10, 2, *FINE)
    assert torch.allclose(frames.mean((0, 1, 3, 4)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(frames.std((0, 1, 3, 4)), torch.ones(2), atol=1e-3)


@pytest.mark.parametrize("backbone", [FNO(width=8, depth=2, modes=(5, 6)), UNet(width=4, levels=3)])
@pytest.mark.parametrize("grid", [(32, 20), (11, 13)])
def test_networks_of_any_grid_act_as_if_they_were_made_for_it(backbone: FNO | UNet, grid: tuple[int, ...]) -> None:
    fields = Fields(channels=("a", "b"), grid=(16, 24), history=3)
    network = backbone.build(fields)
    same = backbone.build(attrs.evolve(fields, grid=grid))
    same.load_state_dict(network.state_dict())
    frames = torch.randn(2, 3, 2, *grid)
    with torch.inference_mode():
        network(frames)
    for each in (network, same):
        each(frames).field.square().sum().backward()
    assert torch.equal(network(frames).field, same(frames).field)
    gradients = [[weight.grad for weight in each.parameters()] for each in (network, same)]
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", ["dpot", "moepot"])
def test_transformers_of_patches_train_on_other_grids_than_their_own(catalog: Catalog, name: str) -> None:
    component = catalog.get(Backbone, name)(width=32, depth=1, heads=2, patch=4, normalize=True)
    network = component.build(Fields(channels=("a",), grid=COARSE, history=3, datasets=("one",)))
    for grid in (FINE, (8, 32)):
        network.zero_grad()
        field = network(torch.randn(2, 3, 1, *grid)).field
        assert field.shape == (2, 1, 1, *grid)
        field.square().sum().backward()
        assert all(weight.grad is not None for weight in network.parameters())


def test_a_compiled_network_gives_the_same_numbers_on_every_grid() -> None:
    network = FNO(width=8, depth=1, modes=(4,)).build(Fields(channels=("a",), grid=COARSE, history=3))
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    for grid in (COARSE, FINE, (8, 32), COARSE, FINE):
        frames = torch.randn(2, 3, 1, *grid)
        assert torch.allclose(compiled(frames).field, network(frames).field, atol=1e-6)


class Fixed(nn.Module):
    """A network that knows one grid only."""

    def __init__(self, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(grid))

    def forward(self, u: Tensor, conditions: Conditions | None = None) -> Prediction:
        return Prediction(field=u[:, -1:] * self.weight)


@pytest.mark.parametrize("network", ["fno", "unet", "fixed"])
def test_a_grid_that_the_network_does_not_take_is_refused_by_name_before_training(
    native: Path, catalog: Catalog, network: str
) -> None:
    write_prepared(native.parent / "two.h5", waves(6, 10, 6))
    keys = [] if network == "fixed" else [f"backbone.type={network}"]
    experiment = loaded(native, catalog, *keys)
    sources = assembly.open_sources(experiment)
    backbone = Fixed(COARSE) if network == "fixed" else assembly.build_backbone(experiment, sources.fields)
    reasons = {"fno": r"modes = \[4\] are too many for the grid 6×6", "unet": "too small", "fixed": "must match"}
    with pytest.raises(
        ConfigError, match=f"two is given on the grid .6, 6., on which the backbone .*{reasons[network]}"
    ):
        assembly.check_grids(backbone, sources)
    if network == "fno":
        with pytest.raises(ConfigError, match=r"or let the data be resized, as with data\.resize"):
            check(experiment, catalog, Console(quiet=True))


def test_only_the_number_of_axes_of_data_that_are_not_resized_must_be_the_models(
    native: Path, catalog: Catalog
) -> None:
    with pytest.raises(ConfigError, match=r"data.grid: \[16\] has 1 axis, but one is given on the grid \[16, 16\]"):
        assembly.open_sources(loaded(native, catalog, "data.grid=[16]"))


def test_packing_on_one_grid_is_refused_where_nothing_is_to_be_resized(native: Path, catalog: Catalog) -> None:
    selection = load_selection(native, catalog)
    parts = [open_part(component, "train", selection) for component in selection.datasets]
    with pytest.raises(ConfigError, match=r"data.resize = 'native': two is given on the grid \[24, 24\]"):
        plan(parts, native.parent / "packed", COARSE, compressed=False)
    assert [packing.grid for packing in plan(parts, native.parent / "packed", None, compressed=False)] == [None, None]


def test_the_example_config_groups_its_data_by_grid(catalog: Catalog) -> None:
    experiment = loaded(ROOT / "configs" / "experiments" / "native_grids.toml", catalog)
    assert experiment.data.resize == "native"
    assert [dataset.resolution for dataset in experiment.datasets] == [32, 64]
    populations = [Population(starts=(10,) * 192, weight=1.0)] * 2
    assert isinstance(order_by_grid(experiment.sampler.build, populations, [(32, 32), (64, 64)]), GridOrder)
