"""Weights behind a server: fetched once for a machine, tried again, and not kept when they are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from opframe.files.cache import remote_cache
from opframe.files.retries import Retries
from opframe.weights.convert import ImportOptions, import_file
from opframe.weights.location import WeightsError, read_bytes
from opframe.weights.pretrained import read_pretrained, write_folder
from opframe_registry import Catalog
from servers import FileServer
from weights_support import FILES, small_weights

CONTENT = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPFRAME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote_cache(), "retries", Retries(attempts=3, first=0.01))
    return tmp_path / "cache"


def fetched(server: FileServer) -> list[str]:
    """What was asked for, beside whether it has changed."""
    return [request for request in server.requests if request.startswith("GET")]


READ = """
import hashlib, sys
from opframe.weights.location import read_bytes
print("ready", flush=True)
sys.stdin.readline()
print(hashlib.sha256(read_bytes(sys.argv[1])).hexdigest())
"""


def test_processes_of_a_machine_fetch_a_file_once(server: FileServer, cache: Path) -> None:
    url, server.delay = server.serve("model.safetensors", CONTENT), 0.3
    command = [sys.executable, "-c", READ, url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": dict(os.environ)}
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 3
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {process.communicate()[0] for process in processes}
    assert len(said) == 1
    assert read_bytes(url) == CONTENT
    assert fetched(server) == ["GET /model.safetensors"]
    assert sorted(path.name.partition("-")[2] for path in (cache / "weights").rglob("*") if path.is_file()) == [
        "model.safetensors",
    ]


def test_another_version_takes_the_place_of_the_one_before(server: FileServer, cache: Path) -> None:
    assert read_bytes(server.serve("model.safetensors", CONTENT)) == CONTENT
    assert read_bytes(server.serve("model.safetensors", CONTENT[::-1])) == CONTENT[::-1]
    assert len(list((cache / "weights").rglob("*model.safetensors"))) == 1
    server.etags = server.times = False  # now there is no telling, so it is asked for each time
    for content in (CONTENT, CONTENT[:-1]):
        assert read_bytes(server.serve("model.safetensors", content)) == content


def test_a_server_that_fails_for_a_while_is_asked_again(server: FileServer) -> None:
    url = server.serve("model.safetensors", CONTENT)
    server.faults = [503, "truncate", "drop", 429]
    assert read_bytes(url) == CONTENT
    assert server.faults == []
    server.faults = [503] * 3
    with pytest.raises(WeightsError, match=r"other\.pth: HTTP 503 Service Unavailable; tried 3 times"):
        read_bytes(server.serve("other.pth", CONTENT))


@pytest.mark.parametrize("name", ["config.toml", "model.safetensors"])
def test_weights_that_come_damaged_are_fetched_anew_and_never_kept(
    server: FileServer, catalog: Catalog, tmp_path: Path, name: str
) -> None:
    pretrained = small_weights()
    write_folder(pretrained.header, pretrained.weights, tmp_path / "weights")
    url = server.put(tmp_path / "weights", "weights")
    right = server.files[f"/weights/{name}"]
    wrong = right[: len(right) // 2] + b"\xff" * (len(right) - len(right) // 2)
    wrong = wrong if name == "config.toml" else b"\xff" * len(right)
    server.files[f"/weights/{name}"] = wrong  # with the length and the ETag of the right one
    with pytest.raises(WeightsError, match=rf"{name}: (not valid TOML|cannot be read as safetensors)"):
        read_pretrained(url, catalog)
    assert len([request for request in fetched(server) if name in request]) == 2
    server.files[f"/weights/{name}"] = right
    if name == "config.toml":
        server.faults = ["garbage"]  # once
    read = read_pretrained(url, catalog)
    assert read.header == pretrained.header
    assert all(torch.equal(weight, read.weights[key]) for key, weight in pretrained.weights.items())


def test_a_published_file_that_is_refused_is_not_kept(server: FileServer, catalog: Catalog, tmp_path: Path) -> None:
    url = server.serve("dpot.pth", FILES["dpot"].read_bytes())
    server.faults = ["garbage"]
    with pytest.raises(WeightsError, match=r"dpot\.pth: not a file that torch\.save wrote"):
        import_file(url, tmp_path / "out", ImportOptions(), catalog)
    import_file(url, tmp_path / "out", ImportOptions(), catalog)
    assert len(fetched(server)) == 2


def test_without_a_folder_to_keep_them_in_weights_are_read_all_the_same(
    server: FileServer, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("a file")
    assert read_bytes(server.serve("model.safetensors", CONTENT)) == CONTENT
    assert "weights are not kept here" in caplog.text


def test_credentials_reach_the_server_and_nothing_else(
    server: FileServer, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.password = "me:hush-hush"
    server.serve("model.safetensors", CONTENT * 4)
    url = server.url("model.safetensors", "me:hush-hush@") + "?signature=hush-hush"
    assert read_bytes(url) == CONTENT * 4
    assert "fetched once to" in caplog.text
    with pytest.raises(WeightsError) as raised:
        read_bytes(url.replace("model", "none"))
    assert "hush" not in caplog.text + str(raised.value) + "".join(map(str, cache.rglob("*")))
