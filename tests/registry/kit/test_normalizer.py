"""Normalizers that are broken on purpose: each is caught by the name of the promise that it breaks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from attrs import frozen
from torch import Tensor

from opframe_registry import DataError, Metadata, Normalizer
from opframe_registry.testing import broken_promises


class Centred:
    """Frames minus the mean of each channel."""

    def __init__(self, metadata: Metadata) -> None:
        self.channels, self.axes = len(metadata.channels), len(metadata.grid)
        self.mean = torch.zeros(self.channels)

    def fit(self, frames: Iterable[Tensor]) -> None:
        values = torch.cat([piece.movedim(1, 0).flatten(1) for piece in frames], 1).double()
        if bool(values.isnan().all(1).any()):
            raise DataError("a channel has no value")
        self.mean = self.learnt(values).float()

    def learnt(self, values: Tensor) -> Tensor:
        return values.nanmean(1)

    def _column(self) -> Tensor:
        return self.mean.view(-1, *[1] * self.axes)

    def apply(self, frames: Tensor) -> Tensor:
        return frames - self._column()

    def restore(self, frames: Tensor) -> Tensor:
        return frames + self._column()

    def state_dict(self) -> Mapping[str, Tensor]:
        return {"mean": self.mean}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if len(state["mean"]) != self.channels:
            raise ValueError("of other channels")
        self.mean = state["mean"]


class Mixed(Centred):
    """One mean of all channels together."""

    def learnt(self, values: Tensor) -> Tensor:
        return values.nanmean().expand(self.channels).clone()


class LastPiece(Centred):
    """Learns of the last piece alone."""

    def fit(self, frames: Iterable[Tensor]) -> None:
        super().fit(list(frames)[-1:])


class Careless(Centred):
    """Fills what is missing in the frames that it is given."""

    def fit(self, frames: Iterable[Tensor]) -> None:
        pieces = list(frames)
        super().fit(pieces)
        for piece in pieces:
            piece.nan_to_num_(0.0)


class Plane(Centred):
    """Knows of two axes alone."""

    def _column(self) -> Tensor:
        return self.mean.view(-1, 1, 1)


class Unfounded(Centred):
    """Learns NaN where there is nothing."""

    def fit(self, frames: Iterable[Tensor]) -> None:
        values = torch.cat([piece.movedim(1, 0).flatten(1) for piece in frames], 1).double()
        self.mean = values.nanmean(1).float()


class Trusting(Centred):
    """Takes any state."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.mean = state["mean"]


class Summed(Centred):
    """Learns from sums and counts as well."""

    def summary(self, frames: Iterable[Tensor]) -> Mapping[str, Tensor]:
        sums, counts = torch.zeros(2, self.channels, dtype=torch.float64)
        for piece in frames:
            values = piece.movedim(1, 0).flatten(1).double()
            sums, counts = sums + values.nansum(1), counts + (~values.isnan()).sum(1)
        return {"sums": sums, "counts": counts}

    def fit_summaries(self, summaries: Iterable[Mapping[str, Tensor]]) -> None:
        found = list(summaries)
        counts = torch.stack([each["counts"] for each in found]).sum(0)
        self.mean = (torch.stack([each["sums"] for each in found]).sum(0) / counts).float()


class LastSummary(Summed):
    """Learns of the last summary alone."""

    def fit_summaries(self, summaries: Iterable[Mapping[str, Tensor]]) -> None:
        super().fit_summaries(list(summaries)[-1:])


@frozen(kw_only=True)
class Good(Normalizer):
    """Each channel has the mean 0."""

    name: ClassVar[str] = "good"
    made: ClassVar[type[Centred]] = Centred

    def build(self, metadata: Metadata) -> Centred:
        return self.made(metadata)


class Silent(Good):
    """Says that it changes nothing."""

    changes: ClassVar[bool] = False


def test_a_good_one_breaks_no_promise(tmp_path: Path) -> None:
    assert not broken_promises(Good(), tmp_path)


def test_a_good_one_that_learns_from_summaries_breaks_no_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Good, "made", Summed)
    assert not broken_promises(Good(), tmp_path)


@pytest.mark.parametrize(
    ("made", "promise"),
    [
        (Mixed, "channels_are_kept_apart"),
        (LastPiece, "pieces_do_not_matter"),
        (LastSummary, "summaries_of_parts_teach_the_same"),
        (Careless, "what_it_learns_from_stays_as_it_is"),
        (Plane, "grids_have_any_number_of_axes"),
        (Unfounded, "data_without_a_value_are_refused"),
        (Trusting, "a_state_of_other_channels_is_refused"),
    ],
)
def test_a_broken_one_breaks_this_promise_alone(
    made: type[Centred], promise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Good, "made", made)
    assert list(broken_promises(Good(), tmp_path)) == [promise]


def test_one_that_hides_what_it_changes_is_caught(tmp_path: Path) -> None:
    assert list(broken_promises(Silent(), tmp_path)) == ["it_says_whether_it_changes_anything"]
