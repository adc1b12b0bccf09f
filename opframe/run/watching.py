"""What loggers get of the steps between two entries beside the losses: by dataset, of the machine, of the network."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median

import torch
from attrs import define, field
from torch import Tensor, nn

from opframe.processes import Processes
from opframe_registry import Batch

if sys.platform != "win32":
    import resource

_JUMP = 10.0  # times its median that a loss is worth a word
_REMEMBERED = 50  # entries that the median is of
_ENOUGH = 10


@define(kw_only=True)
class Watch:
    """Gathers what is known of every step, at no cost for it; `entry` brings it together, of all processes.

    `titles` are those of the datasets that are trained on, and `shares` what part of all samples each is to have.
    """

    titles: Sequence[str] = ()
    shares: Sequence[float] | None = None
    stall: float | None = field(default=None, init=False)
    saving: float | None = field(default=None, init=False)
    """Seconds that training stood still for a checkpoint, and that one took to be written, since the last entry."""
    _datasets: list[Tensor] = field(factory=list, init=False)
    _samples: dict[str, list[Tensor]] = field(factory=dict, init=False)
    _waited: float = field(default=0.0, init=False)
    _since: float = field(factory=time.monotonic, init=False)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """For the time in which a batch is waited for."""
        begun = time.monotonic()
        yield
        self._waited += time.monotonic() - begun

    def saw(self, batch: Batch, values: Mapping[str, Tensor]) -> None:
        """Keep the datasets of some samples, and values (B,) of them by name."""
        self._datasets.append(batch.dataset)
        for name, value in values.items():
            self._samples.setdefault(name, []).append(value.detach())

    def begin(self) -> None:
        """What comes from now on is for the next entry."""
        self._datasets.clear()
        self._samples.clear()
        self._waited, self._since = 0.0, time.monotonic()

    def entry(self, losses: Tensor, network: nn.Module, processes: Processes) -> tuple[list[float], dict[str, float]]:
        """The sums of `losses` over all processes, and all other numbers by name. Begins anew."""
        own = numbers_of(network)
        means = {name: torch.cat(values).double() for name, values in self._samples.items()}
        rows = self._by_dataset(means)
        elapsed = max(time.monotonic() - self._since, 1e-9)
        rest = torch.tensor([self._waited / elapsed], dtype=torch.float64, device=rows.device)
        own_values = [value.detach().double().reshape(1).to(rows.device) for value in own.values()]
        together = torch.cat([losses.double().to(rows.device), rows.flatten(), rest, *own_values])
        found: list[float] = processes.sum(together).tolist()
        table = torch.tensor(found[len(losses) : len(losses) + rows.numel()]).view(rows.shape)
        after = [value / processes.count for value in found[len(losses) + rows.numel() :]]
        self.begin()
        numbers = self._named(table, list(means))
        numbers |= {"data_wait": after[0], "memory_gb": memory_gb(processes.device)}
        saved = {"save_stall": self.stall, "save_seconds": self.saving}
        numbers |= {name: value for name, value in saved.items() if value is not None}
        self.stall = None
        return found[: len(losses)], numbers | dict(zip(own, after[1:], strict=True))

    def _by_dataset(self, values: Mapping[str, Tensor]) -> Tensor:
        """The number of samples of each dataset, and the sum of each of their values: (1 + values, datasets)."""
        if not self._datasets:
            return torch.zeros(1 + len(values), len(self.titles), dtype=torch.float64)
        dataset = torch.cat(self._datasets)
        rows = [torch.ones_like(dataset, dtype=torch.float64), *values.values()]
        sums = torch.zeros(len(rows), len(self.titles), dtype=torch.float64, device=dataset.device)
        return sums.index_add_(1, dataset, torch.stack(rows))

    def _named(self, table: Tensor, names: Sequence[str]) -> dict[str, float]:
        counts, total = table[0].tolist(), max(float(table[0].sum()), 1.0)
        numbers = {}
        for index, title in enumerate(self.titles):
            for name, row in zip(names, table[1:], strict=True):
                if counts[index]:
                    numbers[f"{name}{title}"] = float(row[index]) / counts[index]
            if len(self.titles) > 1:
                numbers[f"drawn/{title}"] = counts[index] / total
                if self.shares is not None:
                    numbers[f"target/{title}"] = self.shares[index]
        return numbers


def numbers_of(network: nn.Module) -> dict[str, Tensor]:
    """What the modules of a backbone that have a method `numbers` say of themselves, below their names."""
    return {
        f"{place}/{name}" if place else name: value
        for place, module in network.named_modules()
        if callable(say := getattr(module, "numbers", None))
        for name, value in say().items()
    }


def memory_gb(device: torch.device) -> float:
    """The most memory that this process has had so far: of the GPU that it trains on, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if sys.platform == "win32":
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


@define
class Jumps:
    """Notices where a loss is far above what it was of late, once for each time that it leaps up."""

    _seen: list[float] = field(factory=list, init=False)
    _above: bool = field(default=False, init=False)

    def remark(self, step: int, loss: float) -> str | None:
        """What is to be said of the loss of a step, if anything."""
        usual = median(self._seen) if len(self._seen) >= _ENOUGH else loss
        jumped, before = loss > _JUMP * usual, self._above
        self._above = jumped
        if not jumped:
            self._seen = [*self._seen, loss][-_REMEMBERED:]
        if not jumped or before:
            return None
        return (
            f"step {step}: the loss is {loss:.4g}, {loss / usual:.0f} times its median of late; the callback 'rescue' "
            "leaves such steps out"
        )
