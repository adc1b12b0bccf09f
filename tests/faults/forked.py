"""A process that has imported everything, and forks a run for each request: so that a run costs a second, not ten.

It reads requests as lines of JSON and answers with lines: the number of the process when it has begun, and its exit
code when it is over. Runs may overlap.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import selectors
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import Queue
from typing import Any

from attrs import define, field

IMPORTED = (
    "opframe.cli.main",
    "opframe.run.job",
    "opframe.readers.remote_hdf5",
    "opframe_autoregressive.loss",
    "opframe_baselines.networks",
    "opframe_loggers.events",
    "opframe_loggers.json_lines",
    "opframe_metrics.errors",
    "opframe_normalizers.live",
    "opframe_pot.dpot",
    "opframe_prepared.reader",
    "opframe_sampling.order",
    "torch._dynamo",  # which the optimizer imports in its first step
    "torch.distributed.checkpoint",
)
"""What every run needs."""


def serve() -> None:
    """What the forking process does, until its input ends."""
    for module in IMPORTED:
        importlib.import_module(module)
    os.set_blocking(0, True)
    chooser = selectors.DefaultSelector()
    wakes, woken = os.pipe()
    os.set_blocking(woken, False)
    import signal

    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    chooser.register(0, selectors.EVENT_READ)
    chooser.register(wakes, selectors.EVENT_READ)
    names: dict[int, int] = {}
    rest = b""
    while True:
        for key, _ in chooser.select():
            if key.fd == wakes:
                os.read(wakes, 512)
                _reap(names)
                continue
            data = os.read(0, 65536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                _begin(json.loads(line), names)
        _reap(names)


def _reap(names: dict[int, int]) -> None:
    while names:
        number, status = os.waitpid(-1, os.WNOHANG)
        if number == 0:
            return
        _say({"name": names.pop(number), "code": os.waitstatus_to_exitcode(status)})


def _begin(request: dict[str, Any], names: dict[int, int]) -> None:
    number = os.fork()
    if number == 0:
        _run(request)
    names[number] = request["name"]
    _say({"name": request["name"], "process": number})


def _run(request: dict[str, Any]) -> None:
    import signal

    from opframe.cli.main import main

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(f"{request['said']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if request["largest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"], request["largest_file"]))
    try:
        main(request["words"])
    except SystemExit as error:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(error.code if isinstance(error.code, int) else 1)
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _say(answer: dict[str, int]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


@define
class Forked:
    """A run that has been begun."""

    process: int
    _said: Path
    _codes: Queue[int]
    _code: int | None = field(default=None, init=False)

    def wait(self, seconds: float = 120.0) -> int:
        """Its exit code, negative the signal that ended it."""
        if self._code is None:
            self._code = self._codes.get(timeout=seconds)
        return self._code

    @property
    def over(self) -> bool:
        return self._code is not None or not self._codes.empty()

    @property
    def said(self) -> str:
        """What it has said on stdout and stderr; nothing if it was ended before it could."""
        files = (self._said.with_name(f"{self._said.name}.{name}") for name in ("stdout", "stderr"))
        return "".join(file.read_text() for file in files if file.exists())


class Forks:
    """Begins runs in forked processes."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._begun: dict[int, Queue[int]] = {}
        self._ended: dict[int, Queue[int]] = {}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._server = subprocess.Popen([sys.executable, __file__], env=environment, **pipes)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._server.stdout or ():
            answer = json.loads(line)
            if "process" in answer:
                self._begun[answer["name"]].put(answer["process"])
            else:
                self._ended[answer["name"]].put(answer["code"])

    def begin(self, words: Sequence[object], largest_file: int = 0) -> Forked:
        """Begin `opframe WORDS`."""
        self._count += 1
        name, said = self._count, self._folder / f"said-{self._count}"
        self._begun[name], self._ended[name] = Queue(), Queue()
        request = {"name": name, "words": list(map(str, words)), "said": str(said), "largest_file": largest_file}
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._server.stdin.flush()
        return Forked(self._begun[name].get(timeout=120), said, self._ended[name])

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(timeout=60)


if __name__ == "__main__":
    serve()
