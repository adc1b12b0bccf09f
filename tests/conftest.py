"""Fixtures: the installed catalogue, a small experiment, and the command line as a person calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from opframe.files.cache import RemoteCache
from opframe_registry import Catalog, discover
from remote_support import cache_in, use
from servers import Bucket, FileServer
from support import write_experiment
from weights_support import Call, command_line

collect_ignore = ["third_party"]  # packages of others, which test_third_party.py installs before it runs their tests


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Arrays as small as those of the tests are faster on one thread, above all on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is kept of remote files goes where the tests' other files go."""
    os.environ["OPFRAME_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The components of this installation."""
    return discover()


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """A small experiment on two prepared datasets of one and two channels, ready to run in `tmp_path`."""
    return write_experiment(tmp_path)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which plugins are found that are installed there."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A file server on this machine that can be told to fail."""
    with FileServer() as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> RemoteCache:
    """A cache of remote files that keeps their index alone."""
    return cache_in(tmp_path / "cache")


@pytest.fixture(scope="session")
def moto() -> Iterator[Bucket]:
    with Bucket() as bucket:
        yield bucket


@pytest.fixture
def bucket(moto: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An S3 server on this machine that can be told to fail."""
    return use(moto, monkeypatch)


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def opframe() -> Command:
    """Run the command line in a process of its own, with one thread so that results are comparable."""

    def call(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **options.pop("env", {})}
        return subprocess.run(
            [sys.executable, "-m", "opframe", *map(str, words)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
            **options,
        )

    return call


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line in this process, which costs no start of another."""
    return command_line(monkeypatch, capsys)
