"""What this machine is, and what it can do at most."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from opframe.bench.timing import in_turns
from opframe.layers.products import dense

_ROWS, _WIDTH = 4096, 1024
_COPIED = 2**28
_SECONDS = 0.5


def description(device: torch.device) -> str:
    """Processor or GPU, threads and version of torch, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} {'threads' if threads > 1 else 'thread'}, torch {torch.__version__}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def ceilings(device: torch.device, precision: str) -> tuple[float, float]:
    """Operations a second of a large matrix product, and bytes a second read and written by a large copy."""
    return product_ceiling(device, getattr(torch, precision)), copy_ceiling(device)


def product_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second that a large matrix product reaches here, by the faster of two libraries on a CPU."""
    rows = torch.randn(_ROWS, _WIDTH, device=device, dtype=dtype)
    weight = torch.randn(_WIDTH, _WIDTH, device=device, dtype=dtype)
    times = in_turns([lambda: rows @ weight, lambda: dense(rows, weight)], _SECONDS, device)
    return 2 * _ROWS * _WIDTH**2 / min(map(min, times))


def copy_ceiling(device: torch.device) -> float:
    """Bytes a second that are read and written where a large array is copied."""
    source = torch.ones(_COPIED // 4, device=device)
    copied = torch.empty_like(source)
    (times,) = in_turns([lambda: copied.copy_(source)], _SECONDS, device)
    return 2 * _COPIED / min(times)
