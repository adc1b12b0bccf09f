"""The same promises on a CUDA device; skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from conftest import Command
from opframe_diffusion_reaction.solver import DiffusionReactionSolver
from opframe_pot import DPOT
from opframe_registry import Fields
from support import assert_same_training

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
ON_GPU = ("--set", "trainer.device=cuda")


def test_the_network_gives_the_same_on_a_gpu() -> None:
    torch.manual_seed(0)
    fields = Fields(channels=("u", "v"), grid=(32, 64), history=4)
    network = DPOT(width=64, depth=2, heads=4, patch=4, normalize=True).build(fields)
    inputs = torch.randn(3, 4, 2, 32, 64)
    expected = network(inputs).field
    found = network.cuda()(inputs.cuda()).field.cpu()
    assert (found - expected).norm() <= 1e-3 * expected.norm()  # TF32 may be on


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_on_a_gpu_follows_training_on_a_cpu(experiment: Path, opframe: Command, precision: str) -> None:
    folders = [experiment.parent / name for name in ("cpu", "gpu")]
    assert opframe("run", experiment, "--set", f"run.folder={folders[0]}").returncode == 0
    options = (*ON_GPU, "--set", f"run.folder={folders[1]}", "--set", f"trainer.precision={precision}")
    done = opframe("run", experiment, *options)
    assert done.returncode == 0, done.stderr
    reports = [json.loads((folder / "report.json").read_text())["datasets"] for folder in folders]
    for one, two in zip(*reports, strict=True):
        assert two["scores"]["model"]["full"] == pytest.approx(one["scores"]["model"]["full"], rel=0.1)


def test_resuming_on_a_gpu_gives_the_same_weights(experiment: Path, opframe: Command) -> None:
    assert opframe("run", experiment, *ON_GPU, "--set", f"run.folder={experiment.parent / 'straight'}").returncode == 0
    assert opframe("run", experiment, *ON_GPU, "--stop-at", 4).returncode == 0
    assert opframe("run", experiment, *ON_GPU, "--resume").returncode == 0
    assert_same_training(experiment.parent / "run", experiment.parent / "straight", 8)


def test_a_solver_gives_the_same_on_a_gpu() -> None:
    on_cpu, on_gpu = (DiffusionReactionSolver(resolution=32, device=torch.device(name)) for name in ("cpu", "cuda"))
    initial = on_cpu.initial(torch.Generator().manual_seed(0))[None]
    for expected, found in zip(on_cpu.frames(initial), on_gpu.frames(initial), strict=True):
        assert (found.cpu() - expected).norm() <= 1e-4 * expected.norm()
