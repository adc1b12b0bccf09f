"""`opframe data fetch CONFIG`: everything that a config names, from a real HTTP server."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from data_support import Command, command
from opframe.tools.catalogue import unpack
from opframe_registry import DataError
from servers import FileServer

__all__ = ["command"]

ONE, TWO = (np.random.default_rng(seed).bytes(2_000_000) for seed in (1, 2))


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def archive(*names: str, kind: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", kind) as packed:
        for name in names:
            packed.writestr(name, name)
    return content.getvalue()


@pytest.fixture
def config(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two datasets of one linked file each, the second with a file that has no link."""
    monkeypatch.setenv("OPFRAME_DATA", str(tmp_path / "data"))
    path = tmp_path / "data.toml"
    path.write_text(f"""
[[datasets]]
type = "prepared"
label = "first"
url = "${{OPFRAME_DATA}}/one.h5"
test = 1
[[datasets]]
type = "prepared"
label = "second"
url = "${{OPFRAME_DATA}}/two/{{split}}.h5"
[[files]]
label = "first"
path = "${{OPFRAME_DATA}}/one.h5"
url = "{server.serve("api/1234", ONE)}"
md5 = "{md5(ONE)}"
[[files]]
label = "second"
path = "${{OPFRAME_DATA}}/two/train.h5"
url = "{server.serve("api/5678", TWO)}"
[[files]]
label = "second"
path = "${{OPFRAME_DATA}}/two/test.h5"
homepage = "https://example.org/data"
note = "ask for the key"
""")
    return path


def test_what_has_a_link_is_downloaded_and_where_the_rest_is_to_be_had_is_said(
    command: Command, config: Path, server: FileServer, tmp_path: Path
) -> None:
    done = command("data", "fetch", config)
    assert done.returncode == 2
    data = tmp_path / "data"
    lines = done.stdout.splitlines()
    assert lines[0] == "0 of 3 files are there; 2 to download (4 MB); 1 without a direct link"
    assert f"{data / 'one.h5'}: 2 MB, md5 is right" in lines
    assert f"{data / 'two/train.h5'}: 2 MB, not verified, as no checksum is published" in lines
    wanted = f"{data / 'two/test.h5'}: has no direct link; get it from https://example.org/data; ask for the key"
    assert wanted in lines
    assert lines[-1] == "missing: second"
    assert ((data / "one.h5").read_bytes(), (data / "two" / "train.h5").read_bytes()) == (ONE, TWO)
    (data / "two" / "test.h5").write_bytes(b"here")
    server.requests.clear()
    again = command("data", "fetch", config)
    assert (again.returncode, server.requests) == (0, [])
    assert again.stdout.startswith("3 of 3 files are there\n")


def test_one_dataset_can_be_chosen(command: Command, config: Path, tmp_path: Path) -> None:
    assert command("data", "fetch", config, "--only", "first").returncode == 0
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["one.h5"]
    wrong = command("data", "fetch", config, "--only", "frist")
    assert "no file belongs to 'frist'; did you mean 'first'?" in " ".join(wrong.stderr.split())


def test_damage_and_failures_leave_no_file_but_do_not_keep_from_the_others(
    command: Command, config: Path, server: FileServer, tmp_path: Path
) -> None:
    server.files["/api/1234"] = TWO
    done = command("data", "fetch", config)
    assert done.returncode == 2
    assert f"what came has the md5 {md5(TWO)}, expected {md5(ONE)}; it was deleted" in done.stdout
    assert done.stdout.splitlines()[-1] == "missing: first, second"
    assert not (tmp_path / "data" / "one.h5").exists()
    assert (tmp_path / "data" / "two" / "train.h5").read_bytes() == TWO
    del server.files["/api/1234"]
    done = command("data", "fetch", config, "--only", "first")
    assert "1 to download (1 of unknown size)" in done.stdout
    assert "no such file (HTTP 404)" in done.stdout


def test_a_damaged_file_that_is_there_is_named_and_left(command: Command, config: Path, tmp_path: Path) -> None:
    path = tmp_path / "data" / "one.h5"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    done = command("data", "fetch", config, "--only", "first")
    assert (done.returncode, "exists, and has another md5" in done.stdout) == (2, True)
    assert path.read_bytes() == b"mine"


def test_an_archive_becomes_the_folder_and_is_not_needed_again(
    command: Command, server: FileServer, tmp_path: Path
) -> None:
    content = archive("cavity/prop/case0000/u.npy", "cavity/bc/case0000/u.npy", "__MACOSX/cavity/._bc")
    path = tmp_path / "cfd.toml"
    path.write_text(
        '[[datasets]]\ntype = "cfdbench"\nurl = "cfd/cavity"\n'
        f'[[files]]\nlabel = "cfdbench"\npath = "cfd/cavity"\nurl = "{server.serve("x.zip", content)}"\nunpack = true\n'
    )
    assert command("data", "fetch", path).returncode == 0
    found = sorted(str(file.relative_to(tmp_path)) for file in (tmp_path / "cfd").rglob("*") if file.is_file())
    assert found == ["cfd/cavity.zip", "cfd/cavity/bc/case0000/u.npy", "cfd/cavity/prop/case0000/u.npy"]
    (tmp_path / "cfd" / "cavity.zip").unlink()
    server.requests.clear()
    assert command("data", "fetch", path).returncode == 0
    assert server.requests == []


@pytest.mark.parametrize("outer", ["", "bc/", "cylinder/bc/"])
def test_outer_folders_that_all_files_share_are_dropped(tmp_path: Path, outer: str) -> None:
    packed = tmp_path / "bc.zip"
    packed.write_bytes(archive(f"{outer}case0000/u.npy", f"{outer}case0001/u.npy"))
    unpack(packed, tmp_path / "bc")
    assert (tmp_path / "bc" / "case0001" / "u.npy").read_text() == f"{outer}case0001/u.npy"


@pytest.mark.parametrize("name", ["../escaped.txt", "/escaped.txt", "a/../../escaped.txt"])
def test_an_archive_that_would_write_elsewhere_is_not_unpacked(tmp_path: Path, name: str) -> None:
    packed = tmp_path / "in" / "bc.zip"
    packed.parent.mkdir()
    packed.write_bytes(archive("case0000/u.npy", name))
    with pytest.raises(DataError, match="would be written elsewhere"):
        unpack(packed, tmp_path / "in" / "bc")
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "bc.zip"]


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_archives_leave_no_folder(tmp_path: Path, kind: int) -> None:
    packed = tmp_path / "bc.zip"
    content = bytearray(archive("case0000/u.npy", "case0001/u.npy", kind=kind))
    content[30 + len("case0000/u.npy") + 2] ^= 0xFF  # within the first file
    packed.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be unpacked .*; delete it to download it again"):
        unpack(packed, tmp_path / "bc")
    assert not (tmp_path / "bc").exists()


def test_what_cannot_be_done_is_said_before_anything_is_downloaded(
    command: Command, config: Path, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*words: object) -> str:
        done = command("data", "fetch", *words)
        assert done.returncode == 2
        return " ".join(done.stderr.split())

    assert "--to goes with the address of a file, not with" in said(config, "--to", tmp_path)
    assert "--only goes with a config, not with http" in said(server.url("x.h5"), "--only", "first")
    assert "give the folder for x.h5: --to FOLDER" in said(server.url("x.h5"))
    monkeypatch.setenv("OPFRAME_DATA", "s3://bucket")
    assert "s3://bucket/one.h5: files are downloaded to folders of this machine" in said(config)
    config.write_text(config.read_text().partition("[[files]]")[0])
    assert "it has no [[files]]" in said(config)
    config.write_text(config.read_text() + '[[files]]\nlabel = "first"\npath = "one.h5"\n')
    assert "files[0]: set 'url', or 'homepage' where there is no direct link" in said(config)
    assert server.requests == []
