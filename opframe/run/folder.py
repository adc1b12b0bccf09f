"""The run folder: whose it is, what is in it, and the facts that explain it later."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from attrs import frozen

from opframe.config.defaults import completed
from opframe.config.settings import Experiment
from opframe.console import counted
from opframe.files.atomic import write_atomically
from opframe.files.retries import redacted
from opframe.processes import is_of_another
from opframe.run.assembly import Sources
from opframe.run.experiment import to_toml
from opframe.weights.checkpoints import CheckpointRecord, latest_record, latest_step
from opframe.weights.normalization import differing, normalised, records
from opframe.weights.pretrained import Header, Origin, Trained, header_toml, now, read_header
from opframe_registry import Catalog, OpframeError, RunError

_PACKAGES = ("opframe", "torch", "numpy", "h5py", "attrs", "cattrs", "pluggy", "fsspec", "tensorboard")
# What may change between the parts of one run, because it does not change the weights.
_FREE = {"title", "run.folder", "run.copy", "data.cache", "data.workers", "trainer.device"}
_FREE |= {f"trainer.{key}" for key in ("log_every", "evaluate_every", "checkpoint_every", "keep", "keep_every")}
_FREE |= {"trainer.save", "trainer.timeout", "trainer.wall_clock", "data.patience"}
_FREE |= {f"parallel.{key}" for key in ("strategy", "shard", "cpu_offload", "checkpoint_activations")}
_FREE_TABLES = ("evaluation.", "zero_shot", "files", "loggers", "callbacks")


@frozen(kw_only=True)
class RunFolder:
    """A folder that holds, or is to hold, one run."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def claim(self, experiment: Experiment, resume: bool, how: str) -> None:
        """Check that the run may go on here, before anything is loaded or written.

        `how` is the command that continues it. Raises RunError saying what was found.
        """
        if not (self.path / "config.toml").exists():
            if self.path.exists() and any(self.path.iterdir()):
                raise RunError(f"{self.path} exists and is not a run of opframe; choose another run.folder")
            return
        latest = latest_record(self.checkpoints)
        if latest is None:
            return  # a run that never came to a checkpoint: nothing can be lost
        differing = self.differences(experiment)
        if differing:
            lines = "".join(f"\n  {line}" for line in differing)
            raise RunError(f"{self.path} holds another experiment; it differs in{lines}\nchoose another run.folder")
        if not resume:
            found = self._in_words(latest, experiment.trainer.steps)
            raise RunError(
                f"{self.path} holds {found}\ncontinue or evaluate it: {how}\nor choose another run.folder{_again()}"
            )

    def _in_words(self, latest: CheckpointRecord, steps: int) -> str:
        if latest.step >= steps or latest.stopped is not None:
            why = f", after which it was stopped: {latest.stopped}" if latest.stopped else ""
            return f"a finished run ({counted(latest.step, 'step')}{why}); its report is {self.path / 'report.md'}"
        return f"a run that stopped at step {latest.step} of {steps}"

    def check_numbers(self, sources: Sources, catalog: Catalog) -> None:
        """Raises RunError where data are normalised otherwise than those that the run has been trained on so far."""
        if not (self.path / "model.toml").exists():
            return
        try:
            header = read_header(self.path, catalog)
        except OpframeError as error:
            raise RunError(f"{error}\nremove {self.path / 'model.toml'} to go on: it is written anew") from error
        lines = differing(header.normalizer, header.datasets, normalised(sources.train)) if header.normalizer else []
        if lines:
            raise RunError(
                f"{self.path} was trained on data that were normalised by other numbers:{''.join(lines)}\n"
                "continue it with the files of then, or choose another run.folder"
            )

    def describe(
        self, experiment: Experiment, sources: Sources, catalog: Catalog, device: torch.device, processes: int
    ) -> None:
        """Write config.toml, environment.json, and model.toml: what the weights of this run are of."""
        self.path.mkdir(parents=True, exist_ok=True)
        header = Header(
            backbone=experiment.backbone,
            fields=sources.fields,
            normalizer=experiment.normalizer,
            datasets=records(sources.train),
            trained=Trained(seed=experiment.run.seed, opframe=_version("opframe")),
            origin=Origin(source=str(self.path), date=now()),
        )
        write_atomically(self.path / "model.toml", header_toml(header))
        write_atomically(self.path / "config.toml", to_toml(experiment))
        facts = {"run": self.name() or uuid4().hex, **environment(catalog, device, processes)}
        write_atomically(self.path / "environment.json", json.dumps(facts, indent=1))

    def name(self) -> str | None:
        """What this run and its checkpoints are known by, whatever the folder is called; None: it has none yet."""
        with suppress(OSError, ValueError):
            said = json.loads((self.path / "environment.json").read_bytes())
            if isinstance(said, dict) and said.get("run"):
                return str(said["run"])
        latest = latest_record(self.checkpoints)
        return latest.run if latest else None

    def _stored(self) -> dict[str, Any]:
        path = self.path / "config.toml"
        try:
            return completed(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise RunError(f"{path}: cannot be read ({error})") from error

    def differences(self, experiment: Experiment) -> list[str]:
        """What makes the run that is here another experiment, key by key. Raises RunError."""
        old, new = _flat(self._stored()), _flat(tomllib.loads(to_toml(experiment)))
        keys = [key for key in sorted({*old, *new}) if key not in _FREE and not key.startswith(_FREE_TABLES)]
        return [
            f"{key}: {old.get(key, 'not set')!r} there, {new.get(key, 'not set')!r} here"
            for key in keys
            if old.get(key) != new.get(key) and repr(old.get(key)) != repr(new.get(key))  # nan is no other nan
        ]


def _again() -> str:
    """What is to be said where torchrun has begun a run again, with the words of the first time."""
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    return "\ntorchrun begins again with the same words (--max-restarts): give --resume auto at once" if again else ""


@contextmanager
def writable(folder: RunFolder) -> Iterator[None]:
    """Says what to do where something cannot be written: the disk is full, or the folder is gone. Raises RunError."""
    try:
        yield
    except OSError as error:
        if is_of_another(error):
            raise
        step = latest_step(folder.checkpoints)
        kept = "nothing is saved yet" if step is None else f"step {step} is saved, from where --resume goes on"
        place = error.filename or folder.path
        raise RunError(f"{place}: cannot be written or read ({error.strerror or error}); {kept}") from error


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = [(f"{key}.{name}".lstrip("."), item) for name, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = [(f"{key}[{index}]", item) for index, item in enumerate(value)]
    else:
        return {key: value}
    return {name: leaf for prefix, item in items for name, leaf in _flat(item, prefix).items()}


def environment(catalog: Catalog, device: torch.device, processes: int) -> dict[str, Any]:
    """Versions, device and origin of this process."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [redacted(word) for word in sys.argv],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({_processor()})",
        "threads": torch.get_num_threads(),
        "processes": processes,
        "packages": {name: _version(name) for name in _PACKAGES},
        "plugins": {f"{plugin.distribution}:{plugin.name}": plugin.error or "ok" for plugin in catalog.plugins},
        "git_commit": _git_commit(),
    }


def _processor() -> str:
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _git_commit() -> str | None:
    """The commit of the working directory, with a mark when files differ from it."""
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("--no-optional-locks", "status", "--porcelain", "-uno")  # writes nothing: others may wait for it
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("-modified" if changed else "")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()
