"""The units that frames are given in, and those that trained weights see them in."""

from __future__ import annotations

from attrs import evolve, frozen
from torch import Tensor

from opframe.config.building import build_normalization
from opframe.mixture.normalization import apply_to, restored
from opframe.weights.location import WeightsError
from opframe.weights.normalization import without_numbers
from opframe.weights.pretrained import Header
from opframe_registry import Metadata, Normalization, did_you_mean

_UNKNOWN = -1


@frozen(kw_only=True)
class Units:
    """What is known of the frames that a network is given.

    `channels` is how many of the channels are the data's own, the others being padding; None: it is not known.
    `dataset` is the number of the dataset of training that they are of, -1 where it is none, or not known.
    """

    channels: int | None
    normalization: Normalization | None = None
    dataset: int = _UNKNOWN

    def seen(self, frames: Tensor) -> Tensor:
        """Frames (B, T, C, *grid) as the network sees them, with a gradient."""
        if self.normalization is None:
            return frames
        seen = frames.clone()
        apply_to(seen[:, :, : self.channels], self.normalization)
        return seen

    def physical(self, frames: Tensor) -> Tensor:
        """The inverse of `seen`."""
        if self.normalization is None or self.channels is None:
            return frames
        return restored(frames, self.normalization, self.channels)


def units_of(header: Header, where: str, dataset: str | None, statistics_of: Tensor | None = None) -> Units | None:
    """What is said of frames by the title of a dataset of training, or by other frames; None: nothing was said.

    `where` are the weights of the header. Raises WeightsError where it cannot be.
    """
    titles = header.fields.datasets
    if dataset is not None and dataset not in titles:
        raise WeightsError(
            f"{where} was not trained on a dataset '{dataset}'{did_you_mean(dataset, titles)}; it was trained on: "
            f"{', '.join(titles) or 'not known'}"
        )
    if dataset is not None and statistics_of is not None:
        raise WeightsError("give a dataset or statistics_of, not both: either says what frames are normalised by")
    if statistics_of is not None:
        return _learnt(header, where, statistics_of)
    return None if dataset is None else _of_title(header, where, dataset)


def units_of_any(header: Header, where: str) -> Units:
    """What holds for all that was trained on. Raises WeightsError where that is nothing."""
    known = header.datasets
    if not header.normalised:
        return Units(channels=None)
    if not known:
        raise WeightsError(without_numbers(where))
    if all((item.state, len(item.channels)) == (known[0].state, len(known[0].channels)) for item in known):
        return evolve(_of_title(header, where, known[0].title), dataset=0 if len(known) == 1 else _UNKNOWN)
    titles = [item.title for item in known]
    raise WeightsError(
        f"{where} was trained on several datasets, each normalised by its own numbers: {', '.join(titles)}; say of "
        f"which one frames are, as dataset='{titles[0]}', or give frames of other data as statistics_of"
    )


def _of_title(header: Header, where: str, title: str) -> Units:
    number = header.fields.datasets.index(title)
    record = next((item for item in header.datasets if item.title == title), None)
    if record is None and header.normalised:
        raise WeightsError(without_numbers(where))
    if record is None:
        return Units(channels=None, dataset=number)
    made = None
    if header.normalizer is not None and header.normalised:
        made = record.normalization(header.normalizer, header.fields.grid)
    return Units(channels=len(record.channels), normalization=made, dataset=number)


def _learnt(header: Header, where: str, frames: Tensor) -> Units:
    """What the normalizer learns of frames (N, T, C, *grid). Raises WeightsError where they are no such."""
    if header.normalizer is None or not header.normalised:
        raise WeightsError(f"{where} was trained on data as they are; leave out statistics_of")
    axes, channels = 3 + len(header.fields.grid), len(header.fields.channels)
    if frames.ndim != axes or not 0 < frames.shape[2] <= channels or not frames.numel():
        raise WeightsError(
            f"statistics_of has the shape {tuple(frames.shape)}, but expected (trajectories, frames, channels, "
            f"*grid) of {axes} axes, with 1 to {channels} channels"
        )
    if not frames.isfinite().all():
        raise WeightsError("statistics_of holds values that are not finite")
    made = build_normalization(header.normalizer, _metadata(header, frames))
    made.fit([frames.detach().cpu().float().flatten(0, 1)])
    return Units(channels=frames.shape[2], normalization=made)


def _metadata(header: Header, frames: Tensor) -> Metadata:
    """Those of data of which frames (N, T, C, *grid) are all that is known."""
    channels = header.fields.channels[: frames.shape[2]]
    return Metadata(
        trajectories=frames.shape[0],
        frames=frames.shape[1],
        grid=tuple(frames.shape[3:]),
        channels=channels,
        predicted=channels,
    )
