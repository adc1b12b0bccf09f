"""The anomaly correlation coefficient of every trajectory and frame."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from opframe_registry import DataError, Metadata


def anomaly_correlation(prediction: Tensor, truth: Tensor, mask: Tensor, usual: Tensor) -> Tensor:
    """(B, T, C, *grid) -> (B, T). NaN where no channel departs from what is usual, which broadcasts against them."""
    counts = (mask != 0).expand(truth.shape)
    space = tuple(range(3, truth.ndim))
    p = torch.where(counts, prediction - usual, 0.0).double()
    a = torch.where(counts, truth - usual, 0.0).double()
    sizes = p.square().sum(space) * a.square().sum(space)  # (B, T, C)
    measured = a.square().sum(space) > 0
    alike = (p * a).sum(space) / torch.where(sizes > 0, sizes, 1.0).sqrt()
    alike = torch.where(measured, alike.clamp(-1.0, 1.0), 0.0)
    channels = measured.sum(2)
    return torch.where(channels > 0, alike.sum(2) / channels.clamp(min=1), torch.nan)


def mean_over_time(truth: Tensor, mask: Tensor) -> Tensor:
    """Each point's mean over the frames in which it counts, (B, T, C, *grid) -> (B, 1, C, *grid)."""
    counts = (mask != 0).expand(truth.shape)
    return torch.where(counts, truth, 0.0).sum(1, keepdim=True) / counts.sum(1, keepdim=True).clamp(min=1)


@frozen
class Correlation:
    """The metric's function; `climatology` has what is usual by channel."""

    climatology: Mapping[str, Tensor]

    def __call__(self, prediction: Tensor, truth: Tensor, mask: Tensor, metadata: Metadata) -> Mapping[str, Tensor]:
        """The correlation of every frame. Raises DataError where the file and the data differ in their grid."""
        usual = mean_over_time(truth, mask)
        for index, channel in enumerate(metadata.channels):
            if channel in self.climatology:
                given = self.climatology[channel]
                if given.shape != truth.shape[3:]:
                    grids = f"{tuple(given.shape)}, but that of the prediction is {tuple(truth.shape[3:])}"
                    raise DataError(f"metrics: the grid of the climatology of '{channel}' is {grids}")
                usual[:, :, index] = given.to(usual)
        return {"anomaly_correlation": anomaly_correlation(prediction, truth, mask, usual)}


def read_climatology(files: Mapping[str, str]) -> Mapping[str, Tensor]:
    """What is usual by channel. Raises DataError where a file cannot be read."""
    climatology = {}
    for channel, path in files.items():
        try:
            climatology[channel] = torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float32))
        except (OSError, ValueError) as error:
            raise DataError(f"metrics: the climatology of '{channel}' at {path} cannot be read: {error}") from error
    return climatology
