"""Downloads from a real HTTP server: ranges, interruptions, damage, and files that change."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from attrs import define, field

from conftest import Command
from opframe.files.cache import remote_cache
from opframe.files.checksums import Checksum
from opframe.files.fetching import Download, fetch
from opframe.files.retries import Retries
from opframe_registry import DataError
from remote_support import put
from servers import Bucket

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_cache(), "retries", Retries(attempts=3, first=0.01))


@define
class Server:
    """One file over HTTP, with troubles in the order in which they come."""

    content: bytes = CONTENT
    version: str = '"one"'
    cut_after: list[int] = field(factory=list)
    refuse: list[int] = field(factory=list)
    ranges: list[str | None] = field(factory=list)
    headers: dict[str, str] = field(factory=dict)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.ranges.append(handler.headers.get("Range"))
        if self.refuse:
            handler.send_error(self.refuse.pop(0))
            return
        first = int((handler.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if handler.headers.get("If-Range") != self.version:
            first = 0
        handler.send_response(206 if first else 200)
        handler.send_header("Content-Length", str(len(self.content) - first))
        handler.send_header("ETag", self.version)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        last = first + self.cut_after.pop(0) if self.cut_after else len(self.content)
        handler.wfile.write(self.content[first:last])


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{listening.server_port}/some/data.h5?download=1"
    yield state
    listening.shutdown()
    listening.server_close()
    thread.join()


def get(server: Server, folder: Path, sha256: str | None = SHA256) -> Path:
    checksum = Checksum(algorithm="sha256", value=sha256) if sha256 else None
    download = Download(url=server.url, path=folder / "data.h5", checksum=checksum)
    return fetch(download, lambda *_: None)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_download_that_is_cut_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cut_after = [1_000_000, 500_000]
    path = get(server, tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000000-", "bytes=1500000-"]
    assert names(path.parent) == ["data.h5"]


def test_a_server_that_is_busy_for_a_while_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.refuse = [503, 429]
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_a_later_command_continues_what_an_earlier_one_had_to_leave(server: Server, tmp_path: Path) -> None:
    server.cut_after, server.refuse = [1_000_000], []
    server.cut_after += [0, 0, 0]
    with pytest.raises(DataError, match=r"tried 3 times in \d+ s; 1000000 bytes are kept, the same command continues"):
        get(server, tmp_path)
    assert names(tmp_path) == ["data.h5.partial", "data.h5.partial.json"]
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=1000000-"


def test_a_file_that_changed_on_the_server_is_begun_again_not_mixed(server: Server, tmp_path: Path) -> None:
    server.cut_after = [1_000_000, 0, 0, 0]
    with pytest.raises(DataError):
        get(server, tmp_path)
    server.content, server.version = CONTENT[::-1], '"two"'
    assert get(server, tmp_path, hashlib.sha256(CONTENT[::-1]).hexdigest()).read_bytes() == CONTENT[::-1]


def test_damaged_bytes_are_refused_and_deleted(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(DataError, match=rf"expected {SHA256}; it was deleted"):
        get(server, tmp_path)
    assert "data.h5" not in names(tmp_path)
    server.content = CONTENT
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_downloaded_twice_nor_written_over(server: Server, tmp_path: Path) -> None:
    path = get(server, tmp_path)
    get(server, tmp_path)
    assert len(server.ranges) == 1
    path.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"exists, and has another sha256"):
        get(server, tmp_path)
    assert path.read_bytes() == b"mine"


def test_a_whole_partial_file_is_verified_without_asking_for_it(server: Server, tmp_path: Path) -> None:
    path = get(server, tmp_path)
    path.rename(tmp_path / "data.h5.partial")
    (tmp_path / "data.h5.partial.json").write_text(f'{{"url": "{server.url}", "version": "", "size": {len(CONTENT)}}}')
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert len(server.ranges) == 1


def test_an_address_that_does_not_exist_is_not_asked_again(server: Server, tmp_path: Path) -> None:
    server.refuse = [404, 200]
    with pytest.raises(DataError, match=r"/some/data\.h5\?\.\.\.: no such file \(HTTP 404\)$"):
        get(server, tmp_path)
    assert len(server.ranges) == 1
    assert names(tmp_path) == []
    with pytest.raises(DataError, match=r"expected the http or https address of a file"):
        fetch(Download(url="data.h5", path=tmp_path / "data.h5"), lambda *_: None)


def test_the_command_says_what_was_verified(server: Server, tmp_path: Path, opframe: Command) -> None:
    md5 = hashlib.md5(CONTENT).hexdigest()
    done = opframe("data", "fetch", server.url, "--to", tmp_path, "--md5", md5.upper())
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'data.h5'}: 3 MB, md5 is right" in done.stdout
    wrong = opframe("data", "fetch", server.url, "--to", tmp_path / "b", "--sha256", "00")
    assert (wrong.returncode, "expected 00" in wrong.stderr) == (2, True)


def test_what_a_server_says_of_its_bytes_is_verified(server: Server, tmp_path: Path) -> None:
    server.headers = {"Content-MD5": base64.b64encode(hashlib.md5(CONTENT).digest()).decode()}
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    server.cut_after = [1_000_000]
    with pytest.raises(DataError, match=rf"expected {hashlib.md5(CONTENT).hexdigest()}; it was deleted"):
        get(server, tmp_path, None)
    server.content = CONTENT
    assert get(server, tmp_path, None).read_bytes() == CONTENT


def test_credentials_reach_the_server_and_nothing_else(server: Server, tmp_path: Path) -> None:
    url = server.url.replace("//", "//me:hush@").replace("download=1", "signature=hush")
    server.cut_after = [1_000_000, 0, 0, 0]
    with pytest.raises(DataError) as raised:
        fetch(Download(url=url, path=tmp_path / "data.h5"), lambda *_: None)
    assert "hush" not in str(raised.value) + "".join(path.read_text(errors="ignore") for path in tmp_path.iterdir())
    assert fetch(Download(url=url, path=tmp_path / "data.h5"), lambda *_: None).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=1000000-"


def test_the_proxy_of_the_environment_is_asked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url.partition("/some")[0])
    download = Download(url="http://data.invalid/data.h5", path=tmp_path / "data.h5")
    assert fetch(download, lambda *_: None).read_bytes() == CONTENT


def test_a_file_of_a_bucket_goes_on_where_it_stopped(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opframe.files.file._STREAMED", 2**20)
    download = Download(url=put("s3://data/some.bin", CONTENT), path=tmp_path / "some.bin")

    def shown(done: int, total: int) -> None:
        assert total == len(CONTENT)
        if done == 2**20:
            bucket.faults = [403]  # what passes is tried again by the packages below, too

    with pytest.raises(DataError, match=r"some\.bin: .*; 1048576 bytes are kept, the same command continues"):
        fetch(download, shown)
    bucket.requests.clear()
    assert fetch(download, lambda *_: None).read_bytes() == CONTENT
    assert bucket.requests[-1].endswith(f"bytes=2097152-{len(CONTENT) - 1}")
    assert [request.partition("bytes=")[2].partition("-")[0] for request in bucket.requests] == [
        "",
        "1048576",
        "2097152",
    ]
