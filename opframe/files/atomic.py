"""Writing files so that no reader ever finds half of one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A name for a file while it is written, also by several processes; it has its own when it is whole, or goes."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, content: str) -> None:
    """Write a text file that is either the old one or the whole new one."""
    with appearing(path) as partial:
        partial.write_text(content, encoding="utf-8")
