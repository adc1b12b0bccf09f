"""What a machine lets a process have, read from the pseudo files of systems that are not this one."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from opframe.console import bytes_in_words
from opframe.files.limits import free_disk, free_memory, most_threads

GB = 10**9
MEMINFO = "MemTotal: 32000000 kB\nMemFree: 1000000 kB\nMemAvailable: 20000000 kB\nSwapFree: 1000000 kB\n"
SECOND = "sys/fs/cgroup"
FIRST = "sys/fs/cgroup/memory"
CASES = {
    "a machine of its own": ({}, 21_504_000_000),
    "a container of version 2, whose files can be given back": (
        {
            "proc/self/cgroup": "0::/\n",
            f"{SECOND}/memory.max": "8000000000\n",
            f"{SECOND}/memory.current": "5000000000\n",
            f"{SECOND}/memory.stat": "anon 3000000000\ninactive_file 1500000000\nactive_file 500000000\n",
            f"{SECOND}/memory.swap.max": "0\n",
        },
        5 * GB,
    ),
    "a group of version 2 without a limit, within one that has one": (
        {
            "proc/self/cgroup": "0::/slurm/job_7\n",
            f"{SECOND}/slurm/job_7/memory.max": "max\n",
            f"{SECOND}/slurm/job_7/memory.current": "1000000000\n",
            f"{SECOND}/slurm/memory.max": "3000000000\n",
            f"{SECOND}/slurm/memory.current": "1000000000\n",
            f"{SECOND}/slurm/memory.swap.max": "500000000\n",
            f"{SECOND}/slurm/memory.swap.current": "100000000\n",
        },
        2 * GB + 400_000_000,
    ),
    "a group of version 1": (
        {
            "proc/self/cgroup": "5:devices:/\n4:memory:/docker/abc\n0::/\n",
            "proc/meminfo": MEMINFO.replace("SwapFree: 1000000", "SwapFree: 0"),
            f"{FIRST}/docker/abc/memory.limit_in_bytes": "4000000000\n",
            f"{FIRST}/docker/abc/memory.usage_in_bytes": "3000000000\n",
            f"{FIRST}/docker/abc/memory.stat": "total_inactive_file 600000000\n",
            f"{FIRST}/memory.limit_in_bytes": "9223372036854771712\n",
            f"{FIRST}/memory.usage_in_bytes": "9000000000\n",
        },
        1_600_000_000,
    ),
    "a group that uses more than it may": (
        {"proc/self/cgroup": "0::/\n", f"{SECOND}/memory.max": "100\n", f"{SECOND}/memory.current": "200\n"}
        | {f"{SECOND}/memory.swap.max": "0\n"},
        0,
    ),
}


def machine(root: Path, files: dict[str, str]) -> Path:
    """A machine that consists of its pseudo files."""
    for name, content in {"proc/meminfo": MEMINFO, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize("name", CASES)
def test_free_memory_is_what_the_tightest_limit_leaves(tmp_path: Path, name: str) -> None:
    files, free = CASES[name]
    assert free_memory(machine(tmp_path, files)) == free


def test_a_system_without_pseudo_files_says_how_much_memory_it_has(tmp_path: Path) -> None:
    free = free_memory(tmp_path)
    assert free is not None
    assert free > 10**8


def test_a_limit_of_the_process_itself_is_heeded() -> None:
    code = "from opframe.files.limits import free_memory; print(free_memory())"
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (GB, GB))  # noqa: E731
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, preexec_fn=limit)
    assert 0 < int(done.stdout) < GB


def test_threads_are_limited_by_groups_the_system_and_memory_mappings(tmp_path: Path) -> None:
    files = {"proc/sys/vm/max_map_count": "65530\n", "proc/sys/kernel/threads-max": "190000\n"}
    assert most_threads(machine(tmp_path, files)) == 32765
    files = {"proc/self/cgroup": "8:pids:/box\n", f"{SECOND}/pids/box/pids.max": "512\n"}
    assert most_threads(machine(tmp_path, files)) == 512


def test_the_disk_of_a_folder_that_is_not_there_yet_is_that_of_its_parent(tmp_path: Path) -> None:
    assert abs(free_disk(tmp_path / "a" / "b") - free_disk(tmp_path)) < GB


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (999.7e3, "1 MB"), (3.38e6, "3.38 MB"), (5.2e12, "5.2 TB"), (2e19, "20,000 PB")],
)
def test_bytes_in_words(size: float, words: str) -> None:
    assert bytes_in_words(size) == words
