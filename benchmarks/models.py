"""Time and memory of the installed backbones, one process each, as a Markdown table.

    python -m benchmarks.models                              every preset that fits into memory
    python -m benchmarks.models unet moepot:tiny --threads 2 --json models.json

A training step is forward, backward and fused Adam, in float32 or with bfloat16 autocast, on random fields. Times are
medians of three repetitions, or of as many as take --seconds. Memory is the peak of training less what the process had
before the network was built; on a GPU it is what torch allocated there. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from attrs import evolve

from opframe.bench.machine import description
from opframe.bench.timing import in_turns, spread
from opframe.config.building import build_network
from opframe.run.memory import keep_freed_memory
from opframe.tables import markdown_table
from opframe.weights.model_size import in_words, model_size, variants
from opframe_registry import Backbone, Catalog, Fields, OpframeError, Prediction, discover

BYTES_A_PARAMETER = 16
"""Weight, gradient and two moments of Adam, in float32. Activations come on top."""

HEADINGS = ("backbone", "size", "parameters", "activated", "forward", "training step", "memory")


def main() -> None:
    """Measure what the command line names, and print the table."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments)))
        return
    try:
        models = chosen(discover(), arguments.models, arguments.normalize)
    except OpframeError as error:
        parser.error(str(error))
    rows = [_row(arguments, name, size, backbone) for name, size, backbone in models]
    print("\n".join([_environment(arguments), "", *markdown_table(HEADINGS, "llrrrrr", map(_cells, rows))]))
    if arguments.json:
        report = {"environment": _environment(arguments), "command": sys.argv[1:], "models": rows}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    purpose, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=purpose, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("models", nargs="*", metavar="BACKBONE[:SIZE]", help="what to measure (default: every preset of each backbone)")
    add("--grid", type=int, nargs="+", default=[128, 128], metavar="N", help="grid points of each axis (128 128)")
    add("--batch", type=int, default=4, help="samples (4)")
    add("--history", type=int, default=10, help="frames in (10)")
    add("--horizon", type=int, default=1, help="frames out (1)")
    add("--channels", type=int, default=4, help="channels (4)")
    add("--threads", type=int, default=1, help="threads on a CPU (1)")
    add("--device", default="cpu", choices=("cpu", "cuda"), help="where to measure (cpu)")
    add("--precision", default="float32", choices=("float32", "bfloat16"), help="bfloat16: autocast (float32)")
    add("--normalize", action="store_true", help="set normalize = true on every backbone")
    add("--seconds", type=float, default=2.0, help="time that each quantity is measured for, at least (2)")
    add(
        "--memory-limit",
        type=float,
        default=_half_of_memory(),
        metavar="GB",
        help="skip what would need more "
        f"for weights, gradients and Adam (half of this machine's memory, {_half_of_memory():.0f})",
    )
    add("--json", type=Path, metavar="FILE", help="write exact numbers there")
    add("--measure", help=argparse.SUPPRESS)  # what the process of one model is asked for
    return parser


def _half_of_memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2e9


def chosen(catalog: Catalog, wanted: Sequence[str], normalize: bool) -> list[tuple[str, str, Backbone]]:
    """Name, size and settings of what is asked for. Raises OpframeError naming what there is."""
    found = []
    for words in wanted or catalog.names(Backbone):
        name, _, size = words.partition(":")
        sizes = variants(catalog.get(Backbone, name))  # type: ignore[type-abstract]
        if size and size not in sizes:
            raise OpframeError(f"{name} has no size '{size}'; it has {', '.join(sizes)}")
        presets = [key for key in sizes if key != "defaults"] or list(sizes)
        found += [(name, key, evolve(sizes[key], normalize=normalize)) for key in ([size] if size else presets)]
    return found


def _fields(arguments: argparse.Namespace) -> Fields:
    return Fields(
        channels=tuple(f"c{index}" for index in range(arguments.channels)),
        grid=tuple(arguments.grid),
        history=arguments.history,
        horizon=arguments.horizon,
    )


def _row(arguments: argparse.Namespace, name: str, size: str, backbone: Backbone) -> dict[str, Any]:
    """Numbers of one model, or why there are none."""
    row: dict[str, Any] = {"backbone": name, "size": size}
    try:
        parameters = model_size(backbone, _fields(arguments))
    except OpframeError as error:
        return {**row, "why_not": str(error)}
    row |= {"parameters": parameters.total, "activated": parameters.activated}
    needed = BYTES_A_PARAMETER * parameters.total / 1e9
    if needed > arguments.memory_limit:
        return {**row, "why_not": f"training needs {needed:.1f} GB or more, the limit is {arguments.memory_limit:.1f}"}
    print(f"{name} {size} …", file=sys.stderr)
    command = [sys.executable, "-m", "benchmarks.models", *sys.argv[1:], "--measure", f"{name}:{size}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        why = "killed, for want of memory?" if done.returncode < 0 else f"failed with exit code {done.returncode}"
        return {**row, "why_not": why}
    row |= json.loads(done.stdout.splitlines()[-1])
    return row


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of a forward pass and of a training step, and bytes of training, of the one model that is asked for."""
    ((_, _, backbone),) = chosen(discover(), [arguments.measure], arguments.normalize)
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    fields, device = _fields(arguments), torch.device(arguments.device)
    model_size(backbone, fields)  # imports what the network is made of
    before = _memory_in_use(device)
    network = build_network(backbone, fields).to(device)
    inputs = torch.randn(arguments.batch, fields.history, len(fields.channels), *fields.grid, device=device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bfloat16")
    optimizer = torch.optim.Adam(network.parameters(), fused=True)

    def forward() -> None:
        with torch.no_grad(), autocast:
            network(inputs)

    def step() -> None:
        optimizer.zero_grad()
        with autocast:
            prediction: Prediction = network(inputs)
        loss = torch.stack([prediction.field.square().mean(), *prediction.penalties.values()]).sum()
        torch.autograd.backward(loss)
        optimizer.step()

    network.train()
    training = _median_seconds(step, arguments.seconds, device)
    memory = _peak_memory(device) - before
    network.eval()
    return {"training_step": training, "memory": memory, "forward": _median_seconds(forward, arguments.seconds, device)}


def _median_seconds(call: Callable[[], None], seconds: float, device: torch.device) -> float:
    (times,) = in_turns([call], seconds, device)
    return spread(times).median


def _memory_in_use(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else _status("VmRSS")


def _peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(key: str) -> int:
    """Bytes that Linux says of this process. (getrusage also counts what the process that started it had.)"""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def _cells(row: dict[str, Any]) -> list[str]:
    count = [f"{row[key] / 1e6:.1f} M" if key in row else "" for key in ("parameters", "activated")]
    if "why_not" in row:
        numbers = [f"*{row['why_not']}*", "", ""]
    else:
        numbers = [_milliseconds(row["forward"]), _milliseconds(row["training_step"]), f"{row['memory'] / 1e9:.2f} GB"]
    return [row["backbone"], row["size"], *count, *numbers]


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.{0 if seconds >= 0.1 else 1}f} ms"


def _environment(arguments: argparse.Namespace) -> str:
    """One line on what was measured, where and when."""
    torch.set_num_threads(arguments.threads)
    where = description(torch.device(arguments.device))
    how = arguments.precision + ", normalised" * arguments.normalize
    what = f"batch {arguments.batch}, {in_words(_fields(arguments))}, {how}"
    return f"{datetime.now(UTC):%Y-%m-%d}, {where}: {what}"


if __name__ == "__main__":
    main()
