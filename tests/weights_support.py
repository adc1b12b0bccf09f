"""Small trained weights, a run that holds some, and the command line without a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from attrs import frozen

from opframe.cli.main import main
from opframe.config.settings import Trainer
from opframe.run.checkpoint import Checkpoints, collect_state
from opframe.run.distributed import joined
from opframe.weights.checkpoints import CheckpointRecord
from opframe.weights.pretrained import Header, Origin, Weights, header_toml
from opframe_pot import DPOT
from opframe_registry import Fields
from support import GOLDEN

FILES = {"dpot": GOLDEN / "published_format_dpot.pth", "moepot": GOLDEN / "published_format_moepot.pth"}
FIELDS = Fields(channels=("u", "v"), grid=(8, 8), history=3, horizon=2)
SMALL = DPOT(width=16, depth=1, heads=2, patch=4)


def small_weights(seed: int = 0) -> Weights:
    """A small network's fresh weights."""
    torch.manual_seed(seed)
    header = Header(backbone=SMALL, fields=FIELDS, origin=Origin(source="a test"))
    return Weights(location="here", header=header, weights=SMALL.build(FIELDS).state_dict())


def write_run(path: Path, errors: Mapping[int, float | None]) -> Path:
    """A run folder whose checkpoint at step n holds the weights of seed n and has the given error."""
    path.mkdir()
    (path / "model.toml").write_text(header_toml(small_weights().header))
    with joined(Trainer(steps=1, device="cpu")) as processes:
        checkpoints = Checkpoints(path / "checkpoints", 9, processes)
        for step, error in errors.items():
            torch.manual_seed(step)
            network = SMALL.build(FIELDS)
            optimizer = torch.optim.Adam(network.parameters())
            schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
            state = collect_state(network, optimizer, schedule, step, 0)
            checkpoints.save(state, CheckpointRecord(step=step, processes=1, error=error))
    return path


@frozen(kw_only=True)
class Done:
    """What a command has printed, and its exit code."""

    code: object
    output: str
    errors: str


Call = Callable[..., Done]


def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line in this process, which has imported torch already."""

    def call(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["opframe", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main()
        printed = capsys.readouterr()
        return Done(code=exited.value.code, output=printed.out, errors=printed.err)

    return call
