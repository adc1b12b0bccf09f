"""A trained network for data in their own units, whatever it was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from opframe.mixture.moments import moments
from opframe.mixture.normalization import Normalization
from opframe.mixture.statistics import normalization_of
from opframe.weights.location import WeightsError
from opframe.weights.normalization import without_numbers
from opframe.weights.pretrained import Header, Pretrained, build_network
from opframe_registry import Conditions, ConfigError, Prediction, did_you_mean


@final
class Physical(nn.Module):
    """Normalises frames for a network, and restores what it predicts.

    Maps (B, history, C, *grid) to a Prediction whose field is (B, horizon, C, *grid), both in the units of the data.
    Channels that the data do not have are 1, and stay as they are. Raises ConfigError on another number of channels.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, normalization: Normalization, channels: Sequence[str]) -> None:
        super().__init__()
        self.network, self.channels = network, tuple(channels)
        padding = len(channels) - len(normalization.mean)
        self.register_buffer("mean", torch.tensor((*normalization.mean, *[0.0] * padding)))
        self.register_buffer("deviation", torch.tensor((*normalization.deviation, *[1.0] * padding)))

    def forward(self, frames: Tensor, conditions: Conditions | None = None) -> Prediction:
        if frames.ndim < 3 or frames.shape[2] != len(self.channels):
            raise ConfigError(
                f"frames have the shape {tuple(frames.shape)}, but expected (B, history, {len(self.channels)}, *grid); "
                f"the channels are {', '.join(self.channels)}, and those that the data do not have are 1"
            )
        shape = (-1, *[1] * (frames.ndim - 3))
        mean, deviation = self.mean.view(shape), self.deviation.view(shape)
        prediction: Prediction = self.network((frames - mean) / deviation, conditions)
        return dataclasses.replace(prediction, field=prediction.field * deviation + mean)


def physical_network(pretrained: Pretrained, dataset: str | None, statistics_of: Tensor | None) -> nn.Module:
    """The network of weights, for data in their own units. The network itself, where it was trained on such.

    `dataset` is the title of one that was trained on, by whose numbers frames are normalised; `statistics_of` frames of
    other data (N, T, their channels, *grid), by whose mean and deviation they are. Raises WeightsError where neither
    or both say it, and where the weights do not fit.
    """
    header = pretrained.header
    _check(pretrained, dataset, statistics_of)
    if header.origin.normalization == "none":
        return build_network(pretrained)
    known = _chosen(pretrained, dataset) if statistics_of is None else _statistics(statistics_of, header)
    return Physical(build_network(pretrained), known, header.fields.channels).eval()


def _check(pretrained: Pretrained, dataset: str | None, statistics_of: Tensor | None) -> None:
    """Raises WeightsError where what was asked for cannot be."""
    titles = pretrained.header.fields.datasets
    if dataset is not None and dataset not in titles:
        raise WeightsError(
            f"{pretrained.location} was not trained on a dataset '{dataset}'{did_you_mean(dataset, titles)}; it was "
            f"trained on: {', '.join(titles) or 'not known'}"
        )
    if statistics_of is None:
        return
    if dataset is not None:
        raise WeightsError("give a dataset or statistics_of, not both: either says what frames are normalised by")
    if pretrained.header.origin.normalization == "none":
        raise WeightsError(f"{pretrained.location} was trained on data as they are; leave out statistics_of")


def _chosen(pretrained: Pretrained, dataset: str | None) -> Normalization:
    """The numbers of a dataset, which may be left open where there is no choice. Raises WeightsError."""
    known = {item.dataset: item.numbers() for item in pretrained.header.normalization}
    if not known:
        raise WeightsError(without_numbers(pretrained.location))
    if dataset is not None:
        return known[dataset]
    if len(set(known.values())) == 1:
        return next(iter(known.values()))
    raise WeightsError(
        f"{pretrained.location} was trained on several datasets, each normalised by its own mean and deviation: "
        f"{', '.join(known)}; say of which one frames are, as dataset='{next(iter(known))}', or give frames of other "
        "data as statistics_of"
    )


def _statistics(frames: Tensor, header: Header) -> Normalization:
    """Mean and deviation of each channel of frames (N, T, C, *grid). Raises WeightsError where they are no such."""
    axes, channels = 3 + len(header.fields.grid), len(header.fields.channels)
    if frames.ndim != axes or not 0 < frames.shape[2] <= channels or not frames.numel():
        raise WeightsError(
            f"statistics_of has the shape {tuple(frames.shape)}, but expected (trajectories, frames, channels, *grid) "
            f"of {axes} axes, with 1 to {channels} channels"
        )
    if not frames.isfinite().all():
        raise WeightsError("statistics_of holds values that are not finite")
    values = frames.detach().cpu().float().flatten(0, 1).numpy()
    return normalization_of(moments(values, kept=2).over(0))
