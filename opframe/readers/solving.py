"""What datasets that are solved on first use have in common. No torch, so that they can be listed in an instant."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen
from attrs.validators import gt

from opframe_registry import Dataset, Metadata, Progress, Split, Trajectories

if TYPE_CHECKING:
    import torch

    from opframe.readers.solved import Solver


@frozen(kw_only=True)
class SolvedDataset(Dataset):
    """A dataset whose trajectories are solved on first use and kept in the cache, in the prepared layout."""

    train: int = field(default=32, validator=gt(0), metadata={"help": "training trajectories solved"})
    test: int = field(default=8, validator=gt(0), metadata={"help": "test trajectories solved"})

    @abstractmethod
    def solver(self, device: torch.device) -> Solver:
        """What solves them, on a device."""

    @abstractmethod
    def metadata(self, trajectories: int) -> Metadata:
        """What so many trajectories are."""

    def together(self, device: torch.device) -> int:
        """How many trajectories are solved at a time on a device."""
        return 32

    def prepare(self, cache: Path, progress: Progress) -> None:
        """Solve both splits unless they are in the cache. Raises DataError."""
        from opframe.readers.solved import prepare_solved, solving_device

        device = solving_device()
        prepare_solved(self, self.solver(device), self._metadata_of, cache, progress, self.together(device))

    def build(self, split: Split, cache: Path) -> Trajectories:
        """Open one split. Raises DataError if it has not been prepared."""
        from opframe.readers.solved import open_solved

        return open_solved(self, self._metadata_of(split), split, cache)

    def _metadata_of(self, split: Split) -> Metadata:
        return self.metadata(self.train if split == "train" else self.test)
