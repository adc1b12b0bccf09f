"""A process that carries out commands one after the other, which may die of what it is given, and how it is asked."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path

from attrs import define, field, frozen

MEMORY = 8 * 2**30
"""Bytes of address space that a command may have: an allocation beyond fails."""
SECONDS = 20
"""For one command."""


@frozen
class Answer:
    """The exit code of a command and what it printed. No code: the process died, at the places of `printed`."""

    code: int | None
    printed: str


@define
class Worker:
    """Carries out commands in another process, which is started anew when it has died."""

    folder: Path
    _process: subprocess.Popen[str] | None = field(default=None, init=False)

    def ask(self, *words: str) -> Answer:
        """Carry out a command of opframe."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(words) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if line:
            return Answer(**json.loads(line))
        process.wait()
        self._process = None
        return Answer(None, f"exit {process.returncode}: {self._trace.read_text()}")

    def _start(self) -> subprocess.Popen[str]:
        own = {"OMP_NUM_THREADS": "1", "COLUMNS": "400", "OPFRAME_CACHE": str(self.folder / "cache")}
        with self._trace.open("w") as trace:
            return subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=trace,
                text=True,
                cwd=self.folder,
                env={**os.environ, **own},
            )

    @property
    def _trace(self) -> Path:
        """What the process says when it dies."""
        return self.folder / "trace"

    def close(self) -> None:
        """Let the process end."""
        if self._process is not None:
            self._process.communicate()


def serve() -> None:
    """Answer the commands that come, one to a line, until no more do."""
    import opframe_registry

    opframe_registry.discover = cache(opframe_registry.discover)  # most of the time of a command on a small file
    from bad_files_support import call

    answers = os.fdopen(os.dup(1), "w")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    for line in sys.stdin:
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        code, printed = call(*json.loads(line))
        faulthandler.cancel_dump_traceback_later()
        answers.write(json.dumps({"code": code, "printed": printed}) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
