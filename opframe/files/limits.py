"""What this machine lets a process have: memory, threads and room on disk.

Where a system does not say, there is no limit (None). `root` is where its pseudo files are, for tests.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")
_RECLAIMABLE = ("inactive_file", "active_file", "slab_reclaimable")  # what a group gives back when it needs memory
_RECLAIMABLE_1 = ("total_inactive_file", "total_active_file")


def free_memory(root: Path = _ROOT) -> int | None:
    """Bytes of main memory that this process can still have, swap included.

    Limits of its control groups (containers, batch systems) and of itself (`ulimit -v`) are heeded.
    """
    known = [free for free in (_system(root), *_groups(root), _address_space(root)) if free is not None]
    return max(min(known), 0) if known else None


def free_disk(folder: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def most_threads(root: Path = _ROOT) -> int | None:
    """Threads that one process can have at most. Each takes two of its memory mappings: its stack, and a guard page."""
    mappings, threads = _number(root / "proc/sys/vm/max_map_count"), _number(root / "proc/sys/kernel/threads-max")
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    groups = [_number(folder / "pids.max") for folder in _folders(root, "pids")]
    known = [mappings and mappings // 2, threads, None if soft == resource.RLIM_INFINITY else soft, *groups]
    return min((number for number in known if number is not None), default=None)


def _system(root: Path) -> int | None:
    facts = _table(root / "proc/meminfo")
    if "MemAvailable:" in facts:
        return (facts["MemAvailable:"] + facts.get("SwapFree:", 0)) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _groups(root: Path) -> Iterator[int]:
    """What is left in each control group that this process is in, of both versions."""
    for folder in _folders(root, "memory"):
        facts = _table(folder / "memory.stat")
        limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
        if limit is not None and used is not None:
            yield limit - used + sum(facts.get(name, 0) for name in _RECLAIMABLE) + _swap(folder, root)
        limit, used = _number(folder / "memory.limit_in_bytes"), _number(folder / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            yield limit - used + sum(facts.get(name, 0) for name in _RECLAIMABLE_1) + _swap(folder, root)


def _swap(folder: Path, root: Path) -> int:
    """Swap that a group may still use."""
    free = _table(root / "proc/meminfo").get("SwapFree:", 0) * 1024
    limit, used = _number(folder / "memory.swap.max"), _number(folder / "memory.swap.current") or 0
    return free if limit is None else max(min(free, limit - used), 0)


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the control groups of this process, from its own up to the one that holds all."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controllers
            own = top / path.strip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top) and folder.is_dir())


def _address_space(root: Path) -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return None
    try:
        used = int((root / "proc/self/statm").read_text(encoding="utf-8").split()[0])
    except (OSError, ValueError):
        used = 0
    return soft - used * os.sysconf("SC_PAGE_SIZE")


def _number(path: Path) -> int | None:
    """The number in a file; None where there is no file, or the word `max`."""
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}
