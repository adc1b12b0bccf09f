"""Weights are kept in folders, leave a run, and are loaded from anywhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from torch import Tensor, nn

from opframe import load_pretrained
from opframe.files.cache import remote_cache
from opframe.files.retries import Retries
from opframe.weights.convert import export_run
from opframe.weights.location import WeightsError
from opframe.weights.pretrained import build_network, read_header, read_pretrained, write_folder
from opframe_registry import Catalog
from support import ROOT
from weights_support import FILES, Call, command_line, small_weights, write_run


@pytest.fixture
def opframe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line."""
    return command_line(monkeypatch, capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A weights folder."""
    pretrained = small_weights()
    write_folder(pretrained.header, pretrained.weights, tmp_path / "weights")
    return tmp_path / "weights"


def prediction(network: nn.Module) -> Tensor:
    """What a small network makes of fixed input."""
    inputs = torch.randn(2, 3, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        field: Tensor = network(inputs).field
    return field


def expected_prediction(seed: int = 0) -> Tensor:
    return prediction(build_network(small_weights(seed)))


def test_weights_survive_writing_and_reading_to_the_last_bit(tmp_path: Path, catalog: Catalog) -> None:
    table = torch.randn(3, 4)
    weights = {"row": table[1], "same row": table[1], "column": table[:, 2], "count": torch.tensor(7), "table": table}
    weights["half"] = torch.randn(2, 2).bfloat16()
    write_folder(small_weights().header, weights, tmp_path / "out")
    read = read_pretrained(tmp_path / "out", catalog)
    assert read.header == small_weights().header
    assert read.weights.keys() == weights.keys()
    for name, weight in weights.items():
        assert read.weights[name].dtype == weight.dtype
        assert torch.equal(read.weights[name], weight)


def test_whoever_may_read_the_header_may_read_the_weights(folder: Path) -> None:
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_a_folder_is_never_written_over_and_never_half_written(folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = small_weights(seed=1)
    with pytest.raises(WeightsError, match="weights exists; choose another folder"):
        write_folder(other.header, other.weights, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="cannot be written"):
        write_folder(other.header, other.weights, tmp_path / "file" / "weights")
    partial_before = tmp_path / "new.partial"
    partial_before.mkdir()
    (partial_before / "model.safetensors").write_text("left by a process that was killed")
    write_folder(other.header, other.weights, tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["config.toml", "model.safetensors"]
    assert not partial_before.exists()


def test_a_loaded_network_predicts_as_before_and_leaves_random_numbers_alone(folder: Path) -> None:
    torch.manual_seed(5)
    undisturbed = torch.rand(3)
    torch.manual_seed(5)
    network = load_pretrained(str(folder))
    assert torch.equal(torch.rand(3), undisturbed)
    assert not network.network.training
    assert torch.equal(prediction(network), expected_prediction())


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """The URL of a web server on this machine that offers the weights folder's parent."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_weights_are_loaded_from_a_web_server(server: str) -> None:
    assert torch.equal(prediction(load_pretrained(f"{server}/weights/")), expected_prediction())
    with pytest.raises(WeightsError, match=r"http://.*/wheights/config.toml: no such file"):
        load_pretrained(f"{server}/wheights")


def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_cache(), "retries", Retries(attempts=2, first=0.01))
    with pytest.raises(WeightsError, match=r"http://127.0.0.1:9/x/config.toml: .*[Cc]onnect"):
        load_pretrained("http://127.0.0.1:9/x")


def test_weights_are_loaded_from_a_remote_file_system(folder: Path) -> None:
    for path in folder.iterdir():
        with fsspec.open(f"memory://bucket/weights/{path.name}", "wb") as file:
            file.write(path.read_bytes())
    assert torch.equal(prediction(load_pretrained("memory://bucket/weights")), expected_prediction())


class Hub(MemoryFileSystem):  # type: ignore[misc]  # fsspec is not typed
    """Stands in for the hub, which tests do not reach: what is written under `hf://` is kept in memory."""

    protocol = "hf"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return f"/{path.removeprefix('hf://').strip('/')}"


def test_a_repository_of_the_hub_is_asked_for_its_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(sys.modules["fsspec.registry"])["_registry"], "hf", Hub)
    for path in folder.iterdir():
        Hub().pipe_file(f"hf://some/network/{path.name}", path.read_bytes())
    for where in ("some/network", "hf://some/network"):
        assert torch.equal(prediction(load_pretrained(where)), expected_prediction())
    with pytest.raises(WeightsError, match=r"other/network: no such folder here, and no .*hf://other/network/config"):
        load_pretrained("other/network")


def test_what_the_hub_answers_is_passed_on() -> None:
    command = [sys.executable, "-m", "opframe", "weights", "show", "some/network"]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}  # read when the hub's package is imported
    done = subprocess.run(command, capture_output=True, text=True, env=offline, timeout=60)
    assert done.returncode == 2
    assert "some/network: no such folder here" in done.stderr
    assert "api/models/some/network: offline mode is enabled" in done.stderr


def test_a_local_folder_is_preferred_to_a_repository(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent.parent)
    assert torch.equal(prediction(load_pretrained(f"{folder.parent.name}/weights")), expected_prediction())


def test_without_the_hub_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for where, words in (("some/network", "no such folder here; "), ("hf://some/network", "")):
        with pytest.raises(WeightsError, match=rf"^{where}: {words}.*pip install \"opframe\[hub\]\""):
            load_pretrained(where)


BROKEN = {
    "format = 1": ("format = 2", r"format: expected one of 1, got 2"),
    'type = "dpot"': ('type = "dpod"', r"backbone: unknown backbone 'dpod'; did you mean 'dpot'"),
    "width = 16": ("width = 17", r"width = 17 must be a multiple of 8"),
    "depth = 1": ("deepness = 1", r"backbone: unknown key 'deepness'"),
    "history = 3": ('history = "3"', r"fields.history: expected int, got '3'"),
    'source = "a test"': ("", r"origin.source: required, but missing"),
    "[fields]": ("[fields", r"not valid TOML"),
}


@pytest.mark.parametrize("line", BROKEN)
def test_a_header_is_read_strictly(line: str, folder: Path, catalog: Catalog) -> None:
    wrong, words = BROKEN[line]
    text = (folder / "config.toml").read_text()
    assert line in text
    (folder / "config.toml").write_text(text.replace(line, wrong))
    with pytest.raises(WeightsError, match=rf"(?s)weights/config.toml.*{words}"):
        read_header(folder, catalog)


def test_a_place_without_weights_is_named_with_what_was_expected(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file.pth").write_bytes(FILES["dpot"].read_bytes())
    (tmp_path / "empty").mkdir()
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "config.toml").write_text("title = 'an experiment'")
    (folder / "model.safetensors").unlink()
    for name, words in {
        "nowhere": "no such folder",
        "file.pth": "opframe weights import",
        "empty": "no weights folder",
        "experiment": "has no 'format'",
        "weights": "model.safetensors: no such file",
    }.items():
        with pytest.raises(WeightsError, match=rf"{name}.*{words}"):
            load_pretrained(tmp_path / name)


def test_damaged_or_foreign_weights_are_named(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"model.safetensors: cannot be read as safetensors; truncated"):
        load_pretrained(folder)
    (folder / "model.safetensors").write_bytes(whole)
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace("depth = 1", "depth = 2").replace("patch = 4", "patch = 8"))
    with pytest.raises(WeightsError, match=r"(?s)missing: blocks.1.*and \d+ more\n.*pos_embed has the shape"):
        load_pretrained(folder)


# Runs


def test_the_latest_checkpoint_of_a_run_is_taken_whatever_its_test_error(tmp_path: Path, catalog: Catalog) -> None:
    run = write_run(tmp_path / "run", {1: 0.5, 2: 0.1, 3: 0.3})
    assert torch.equal(prediction(load_pretrained(run)), expected_prediction(seed=3))
    read = read_pretrained(run, catalog)
    assert read.weights.keys() == small_weights().weights.keys()
    assert read.header.origin.checkpoint == "checkpoint: step-00000003, the last of its run; nothing was selected"


@pytest.mark.parametrize(
    ("which", "seed", "words"),
    [
        ("latest", 3, "step-00000003, the last of its run; nothing was selected"),
        ("best", 2, "step-00000002, selected by the least error on the test data"),
        ("1", 1, "step-00000001, asked for by its step"),
    ],
)
def test_another_checkpoint_is_exported_where_asked_for_and_what_chose_it_is_kept(
    which: str, seed: int, words: str, tmp_path: Path, catalog: Catalog, opframe: Call
) -> None:
    run = write_run(tmp_path / "run", {1: 0.5, 2: 0.1, 3: 0.3})
    done = opframe("weights", "export", run, tmp_path / "out", "--checkpoint", which)
    assert done.code == 0, done.errors
    assert words in done.output
    assert words in read_header(tmp_path / "out", catalog).origin.checkpoint
    assert torch.equal(prediction(load_pretrained(tmp_path / "out")), expected_prediction(seed))


def test_a_checkpoint_that_is_not_there_is_an_error_that_says_which_are(tmp_path: Path, opframe: Call) -> None:
    run = write_run(tmp_path / "run", {1: None, 2: None})
    for which, words in {
        "best": "none of its checkpoints is the best, since none was evaluated",
        "3": "there is no checkpoint '3'; expected 'latest', 'best' or a step of 1, 2",
        "newest": "there is no checkpoint 'newest'",
    }.items():
        done = opframe("weights", "export", run, tmp_path / "out", "--checkpoint", which)
        assert (done.code, words in done.errors) == (2, True)
        assert not (tmp_path / "out").exists()


def test_an_exported_run_is_a_weights_folder(tmp_path: Path, catalog: Catalog, opframe: Call) -> None:
    run = write_run(tmp_path / "run", {4: 0.25})
    done = opframe("weights", "export", run, tmp_path / "out")
    assert done.code == 0, done.errors
    assert "step-00000004" in done.output
    assert torch.equal(prediction(load_pretrained(tmp_path / "out")), expected_prediction(seed=4))
    again = opframe("weights", "export", run, tmp_path / "out")
    assert (again.code, "exists; choose another folder" in again.errors) == (2, True)
    away = opframe("weights", "export", run, "s3://bucket/weights")
    assert (away.code, "s3://bucket/weights is no local path" in away.errors) == (2, True)


def test_a_run_that_cannot_be_used_is_named(tmp_path: Path, catalog: Catalog) -> None:
    run = write_run(tmp_path / "run", {1: None})
    for file in (run / "checkpoints" / "step-00000001").glob("*.distcp"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(WeightsError, match=r"step-00000001: cannot be read"):
        load_pretrained(run)
    with pytest.raises(WeightsError, match="has no checkpoint yet"):
        load_pretrained(write_run(tmp_path / "fresh", {}))
    write_folder(small_weights().header, small_weights().weights, tmp_path / "weights")
    with pytest.raises(WeightsError, match="is no run folder"):
        export_run(str(tmp_path / "weights"), tmp_path / "out", catalog)


# For users


def test_importing_opframe_does_not_import_torch() -> None:
    code = "import sys, opframe; dir(opframe); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_what_the_page_on_weights_says_works(tmp_path: Path, opframe: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    (tmp_path / "runs").mkdir()
    write_run(tmp_path / "runs" / "default", {1: None})
    monkeypatch.chdir(tmp_path)
    commands = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    for command in commands:
        done = opframe(*shlex.split(command)[1:])
        assert done.code == 0, f"{command}\n{done.errors}"
    assert {path.name for path in (tmp_path / "weights").iterdir()} == {"dpot", "moepot", "warm", "mine"}
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    assert names["future"].shape == (8, 20, 3, 32, 32)
