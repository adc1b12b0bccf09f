"""Servers on loopback that count what is asked of them and fail when they are told to."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from socketserver import BaseServer
from types import TracebackType
from typing import Any, Self

from werkzeug.serving import WSGIRequestHandler, make_server

_NAN = b"\x00\x00\xc0\x7f"  # as float32, least byte first


class Served:
    """A server in a thread of its own, for the time of a context. Made by a subclass: `_server` and `_thread`."""

    _server: BaseServer
    _thread: threading.Thread

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class FileServer(Served):
    """Files over HTTP with ranges of bytes, ETag and modification time, each of which can be switched off.

    `listings`: folders are answered with a page of links to what they hold.

    `faults` are what goes wrong with the next GET requests: a status, "drop" (no answer), "truncate" (the connection is
    lost within the body), "short" (a well-formed answer with fewer bytes), "shifted" (other bytes), "stall", or
    "garbage" (as many bytes as asked for, said to be the right ones; as numbers they are NaN).
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etag: dict[str, str] = {}
        self.modified: dict[str, str] = {}
        self.etags = self.times = self.ranges = True
        self.digests = False  # whether answers say what the checksum of their bytes should be
        self.listings = False
        self.delay = 0.0
        self.busy_until = 0.0  # of time.monotonic(); everything is answered with 503 before
        self.faults: list[int | str] = []
        self.headers: dict[str, str] = {}  # sent with failures
        self.requests: list[str] = []  # method, path and range
        self.password = ""
        self.busiest = self._busy = 0  # most requests at the same time
        self._versions = count()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def serve(self, name: str, content: bytes) -> str:
        """Put a file there, over what is there; its URL."""
        self.files[f"/{name}"] = content
        self.etag[f"/{name}"] = f'"{hashlib.md5(content).hexdigest()}"'
        self.modified[f"/{name}"] = f"Mon, 01 Jan 2024 00:00:{next(self._versions):02} GMT"
        return self.url(name)

    def url(self, name: str, user: str = "") -> str:
        """Where a file is."""
        return f"http://{user}127.0.0.1:{self._server.server_address[1]}/{name}"

    def put(self, folder: Path, name: str) -> str:
        """Put the files of a folder there; the URL of the folder."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.serve(f"{name}/{path.relative_to(folder)}", path.read_bytes())
        return self.url(name)

    def listing(self, path: str) -> bytes | None:
        """A page of links to what a folder holds."""
        start = f"{path.rstrip('/')}/"
        inside = [name.removeprefix(start).partition("/") for name in self.files if name.startswith(start)]
        links = "".join(f'<a href="{start}{name}{slash}">{name}</a>\n' for name, slash, _ in dict.fromkeys(inside))
        return links.encode() if links and self.listings else None

    def next_fault(self, method: str) -> int | str | None:
        with self._lock:
            return self.faults.pop(0) if self.faults and method == "GET" else None

    def began(self, request: str) -> None:
        with self._lock:
            self.requests.append(request)
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)

    def ended(self) -> None:
        with self._lock:
            self._busy -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        class Handler(_Handler):
            server_state = self

        return Handler


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, address: object) -> None:
        """Clients that have left are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_state: FileServer

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_GET(self) -> None:
        self._answer("GET")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing on the terminal."""

    def _answer(self, method: str) -> None:
        state = self.server_state
        path = self.path.partition("?")[0]
        state.began(f"{method} {path} {self.headers.get('Range', '')}".rstrip())
        try:
            time.sleep(state.delay)
            fault = state.next_fault(method)
            content = state.files.get(path)
            if state.password and self.headers.get("Authorization", "") != _basic(state.password):
                self._refuse(401)
            elif time.monotonic() < state.busy_until:
                self._refuse(503)
            elif isinstance(fault, int):
                self._refuse(fault)
            elif content is None and (page := state.listing(path)):
                self._show(method, page)
            elif content is None:
                self._refuse(404)
            elif fault == "drop":
                self.close_connection = True
            else:
                self._send(method, path, content, fault)
        finally:
            state.ended()

    def _show(self, method: str, page: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if method == "GET":
            self.wfile.write(page)

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        for name, value in self.server_state.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, method: str, path: str, content: bytes, fault: str | None) -> None:
        state = self.server_state
        asked = re.fullmatch(r"bytes=(\d*)-(\d+)", self.headers.get("Range", ""))
        part = content
        if asked and state.ranges:
            start, stop = int(asked[1] or 0), min(int(asked[2]) + 1, len(content))
            if not asked[1]:  # the last bytes
                start, stop = max(len(content) - int(asked[2]), 0), len(content)
            if start >= len(content):
                self._refuse(416)
                return
            if fault == "short":
                stop -= (stop - start) // 2
            if fault == "shifted":
                start, stop = (start - 8, stop - 8) if start >= 8 else (start + 8, stop + 8)
            part = content[start:stop]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        else:
            self.send_response(200)
        if state.etags:
            self.send_header("ETag", state.etag[path])
        if state.times:
            self.send_header("Last-Modified", state.modified[path])
        if state.digests:
            digest = base64.b64encode(hashlib.sha256(part).digest()).decode()
            self.send_header("Content-Digest", f"sha-256=:{digest}:")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if method == "GET":
            part = (_NAN * len(part))[: len(part)] if fault == "garbage" else part
            if fault == "stall":
                time.sleep(3)
            self.wfile.write(part[: len(part) // 2] if fault == "truncate" else part)
            self.close_connection = self.close_connection or fault == "truncate"


def _basic(password: str) -> str:
    return f"Basic {base64.b64encode(password.encode()).decode()}"


class _Quiet(WSGIRequestHandler):
    def log_request(self, *args: object) -> None:
        """Nothing on the terminal."""


class Bucket(Served):
    """moto's S3 server with one bucket, `data`, that counts requests for objects and fails when it is told to."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self.faults: list[int] = []  # statuses of the next requests for objects
        self.requests: list[str] = []
        self._application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._counted, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def _counted(self, environment: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environment["REQUEST_METHOD"], environment["PATH_INFO"]
        if method in ("GET", "HEAD") and path.count("/") > 1:
            self.requests.append(f"{method} {path} {environment.get('HTTP_RANGE', '')}".rstrip())
            if self.faults:
                respond(f"{self.faults.pop(0)} Failure", [("Content-Length", "0")])
                return [b""]
        answer: Iterable[bytes] = self._application(environment, respond)
        return answer
