"""Freed memory stays with the process, so that it is not taken anew in every step."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = """
import resource
from opframe.run.memory import keep_freed_memory

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


HUGE = """
import re
from pathlib import Path
from opframe.run.memory import keep_freed_memory

keep_freed_memory()
held = bytearray(b"1") * (40 * 2**20)
print(re.search(r"AnonHugePages: +(\\d+) kB", Path("/proc/self/smaps_rollup").read_text())[1])
"""
ADVISED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def printed(program: str, **environment: str) -> int:
    """The number that a process prints whose environment says nothing else of memory."""
    words = [sys.executable, "-c", program]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    return int(subprocess.run(words, env=clean | environment, capture_output=True, text=True, check=True).stdout)


def page_faults(kept: bool, **environment: str) -> int:
    """Page faults of a step that takes 80 MB in pieces, after two such steps."""
    return printed(FAULTS.format(kept=kept), **environment)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is told")
def test_a_step_takes_the_memory_of_the_one_before() -> None:
    pages = 80 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    assert page_faults(kept=False) > pages / 2
    assert page_faults(kept=True) < pages / 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is told")
def test_what_the_environment_says_of_memory_goes() -> None:
    threshold = str(2**20)
    assert page_faults(kept=True, MALLOC_MMAP_THRESHOLD_=threshold) > 80 * 2**20 // os.sysconf("SC_PAGE_SIZE") / 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is told")
@pytest.mark.skipif(
    not ADVISED.is_file() or "[madvise]" not in ADVISED.read_text(encoding="utf-8"),
    reason="the system has no huge pages, or gives them to all",
)
def test_memory_lies_in_huge_pages_where_the_system_leaves_that_to_programs() -> None:
    assert printed(HUGE) > 0
    assert printed(HUGE, MALLOC_ARENA_MAX="1") == 0
