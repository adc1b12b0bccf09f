"""Freed memory stays with the process, so that it is not taken anew in every step."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
from opframe.memory import keep_freed_memory

if {kept}:
    keep_freed_memory()

def step():
    del [bytearray(size * 2**20) for size in (4, 4, 12, 60)][:]

step()
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(kept: bool, **environment: str) -> int:
    """Page faults of a step that takes 80 MB in pieces, after two such steps."""
    words = [sys.executable, "-c", FAULTS.format(kept=kept)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    return int(subprocess.run(words, env=clean | environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is told")
def test_a_step_takes_the_memory_of_the_one_before() -> None:
    pages = 80 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    assert page_faults(kept=False) > pages / 2
    assert page_faults(kept=True) < pages / 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is told")
def test_what_the_environment_says_of_memory_goes() -> None:
    threshold = str(2**20)
    assert page_faults(kept=True, MALLOC_MMAP_THRESHOLD_=threshold) > 80 * 2**20 // os.sysconf("SC_PAGE_SIZE") / 2
