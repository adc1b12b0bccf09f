"""What a normalizer promises."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from math import prod
from typing import cast

import attrs
import torch
from torch import Tensor

from opframe_registry.components import Normalizer
from opframe_registry.errors import DataError
from opframe_registry.metadata import Metadata
from opframe_registry.testing.promise import Case, NotApplicableError, Promise, require
from opframe_registry.training import MergeableNormalization, Normalization

METADATA = Metadata(
    trajectories=3,
    frames=8,
    grid=(12, 10),
    channels=("temperature", "flow", "constant"),
    predicted=("temperature", "flow", "constant"),
)
_NEAR = 1e-4  # of the spread of a channel


class Frames:
    """Training data in pieces (T, C, *grid), which may be iterated over again; NaN at some points where `missing`."""

    def __init__(self, missing: bool = False, constant: float = 3.5) -> None:
        generator = torch.Generator().manual_seed(11)
        values = torch.randn(3, 8, 3, *METADATA.grid, generator=generator)
        self.values = values * torch.tensor([10.0, 0.5, 0.0]).view(3, 1, 1) + torch.tensor(
            [287.0, -1.0, constant]
        ).view(3, 1, 1)
        self.missing = missing
        if missing:
            self.values[:, :, :, :4] = torch.nan

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.values.clone())


def _fitted(case: Case, frames: Frames) -> Normalization:
    made = cast("Normalizer", case.component).build(METADATA)
    made.fit(frames)
    return made


def _near(found: Tensor, expected: Tensor) -> bool:
    spread = torch.tensor([10.0, 0.5, 1.0]).view(3, 1, 1)
    return bool(((found - expected).abs() <= _NEAR * spread + 1e-6 * expected.abs()).all())


def restore_undoes_apply(case: Case) -> None:
    """What is applied and restored are the frames that were given, also (B, T, C, *grid) of them."""
    frames = Frames()
    made = _fitted(case, frames)
    for given in (frames.values[0], frames.values):
        restored = made.restore(made.apply(given.clone()))
        require(restored.shape == given.shape, f"{tuple(given.shape)} comes back as {tuple(restored.shape)}")
        require(_near(restored, given), "what is applied and restored differs from what was given")


def a_constant_channel_stays_finite(case: Case) -> None:
    """A channel that is the same everywhere, zero too, is applied and restored to finite values."""
    for constant in (3.5, 0.0):
        frames = Frames(constant=constant)
        made = _fitted(case, frames)
        applied = made.apply(frames.values[0].clone())
        require(bool(applied.isfinite().all()), f"a channel that is {constant} everywhere is not finite when applied")
        require(_near(made.restore(applied), frames.values[0]), f"a channel that is {constant} everywhere is lost")


def missing_values_do_not_count(case: Case) -> None:
    """NaN in what is learnt from is a missing value: the state is finite, and that of the other values alone."""
    frames = Frames(missing=True)
    made = _fitted(case, frames)
    broken = [name for name, value in made.state_dict().items() if not value.isfinite().all()]
    require(not broken, f"with missing values, {', '.join(broken)} of the state are not finite")
    there = frames.values[:, :, :, 4:]
    require(
        bool(made.apply(there.clone()).isfinite().all()), "values that are there become something that is not finite"
    )

    class There(Frames):
        def __iter__(self) -> Iterator[Tensor]:
            return iter(there.clone())

    other = _fitted(case, There())
    same = _near(other.apply(there.clone()), made.apply(there.clone()))
    require(same, "it learns something else of the same values beside missing ones")


def its_state_is_all_that_it_learnt(case: Case) -> None:
    """The state is a mapping to tensors of real numbers, and a fresh object with it does the same, bit by bit."""
    frames = Frames()
    made = _fitted(case, frames)
    state = dict(made.state_dict())
    wrong = [name for name, value in state.items() if not isinstance(value, Tensor) or value.is_complex()]
    require(not wrong, f"{', '.join(wrong)} of the state are no real tensors")
    other = cast("Normalizer", case.component).build(METADATA)
    other.load_state_dict({name: value.clone() for name, value in state.items()})
    same = torch.equal(other.apply(frames.values[0].clone()), made.apply(frames.values[0].clone()))
    require(same, "a fresh object with the same state applies something else")


def it_pickles(case: Case) -> None:
    """It pickles, since loader threads have copies."""
    frames = Frames()
    made = _fitted(case, frames)
    other = pickle.loads(pickle.dumps(made))
    require(torch.equal(other.apply(frames.values[0].clone()), made.apply(frames.values[0].clone())), "a copy differs")


def type_and_device_are_kept(case: Case) -> None:
    """float32 frames stay float32, on their device."""
    frames = Frames()
    made = _fitted(case, frames)
    applied = made.apply(frames.values[0].clone())
    for what, value in (("apply", applied), ("restore", made.restore(applied))):
        require(value.dtype == torch.float32, f"{what} returns {value.dtype}")
        require(value.device == frames.values.device, f"{what} returns something on {value.device}")


def gradients_pass_through_restore(case: Case) -> None:
    """`restore` leaves what it is given as it is, and has a gradient."""
    frames = Frames()
    made = _fitted(case, frames)
    applied = made.apply(frames.values[0].clone()).detach()
    before = applied.clone()
    given = applied.requires_grad_()
    torch.autograd.backward(made.restore(given).sum())
    require(torch.equal(given.detach(), before), "restore changes what it is given")
    require(given.grad is not None and bool(given.grad.isfinite().all()), "no finite gradient passes restore")


def any_values_can_be_applied(case: Case) -> None:
    """Values beyond those that it learnt from are applied and restored to finite ones."""
    made = _fitted(case, Frames())
    beyond = Frames().values[0] * 2 + 5
    applied = made.apply(beyond.clone())
    finite = bool(applied.isfinite().all()) and bool(made.restore(applied).isfinite().all())
    require(finite, "values beyond those that it was fitted on are not finite")


def channels_are_kept_apart(case: Case) -> None:
    """What a channel becomes does not depend on the values of the other channels."""
    one, two = Frames(), Frames()
    two.values[:, :, 0] = 3 * two.values[:, :, 0] + 100
    first, second = (_fitted(case, frames).apply(frames.values[0].clone())[:, 1:] for frames in (one, two))
    require(torch.equal(first, second), "a channel becomes something else where another one has other values")


def pieces_do_not_matter(case: Case) -> None:
    """The same frames in fewer or more pieces teach the same: how they are cut depends on the memory there is."""
    frames = Frames()
    whole, cut = _fitted(case, frames), cast("Normalizer", case.component).build(METADATA)
    cut.fit(list(frames.values.clone().flatten(0, 1)[:, None]))
    given = frames.values[0]
    one, two = (made.apply(given.clone()) for made in (whole, cut))
    spread = one.flatten(2).std((0, 2)).clamp(min=1e-3).view(3, 1, 1)
    require(bool(((one - two).abs() <= 1e-3 * spread).all()), "frames in other pieces are applied otherwise")


def summaries_of_parts_teach_the_same(case: Case) -> None:
    """Where it learns from summaries: those of some pieces each, and of none, teach what all pieces do."""
    frames = Frames(missing=True)
    whole, other = _fitted(case, frames), cast("Normalizer", case.component).build(METADATA)
    if not isinstance(other, MergeableNormalization):
        raise NotApplicableError("it has no summary and fit_summaries")
    pieces = list(frames.values.clone())
    summaries = [dict(other.summary(part)) for part in (pieces[:2], [], pieces[2:])]
    wrong = [name for found in summaries for name, value in found.items() if not isinstance(value, Tensor)]
    require(not wrong, f"{', '.join(wrong)} of a summary are no tensors")
    fresh = cast("Normalizer", case.component).build(METADATA)
    cast("MergeableNormalization", fresh).fit_summaries(summaries)
    given = frames.values[0]
    same = _near(fresh.restore(whole.apply(given.clone())).nan_to_num(), given.nan_to_num())
    require(same, "summaries of parts teach something else than the parts together")


def what_it_learns_from_stays_as_it_is(case: Case) -> None:
    """`fit` changes nothing of the frames that it is given."""
    pieces = list(Frames(missing=True))
    kept = [piece.clone() for piece in pieces]
    cast("Normalizer", case.component).build(METADATA).fit(pieces)
    same = all(torch.equal(one.nan_to_num(-7.0), two.nan_to_num(-7.0)) for one, two in zip(pieces, kept, strict=True))
    require(same, "fit changes the frames that it is given")


def grids_have_any_number_of_axes(case: Case) -> None:
    """Frames with one, two or three axes of space are applied, and restored to what they were."""
    for grid in ((12,), (6, 5), (4, 3, 5)):
        frames = Frames().values.flatten(3)[..., : prod(grid)].reshape(3, 8, 3, *grid)
        made = cast("Normalizer", case.component).build(attrs.evolve(METADATA, grid=grid, boundary="unknown"))
        made.fit(frames.clone())
        restored = made.restore(made.apply(frames[0].clone()))
        right = restored.shape == frames[0].shape and _near(
            restored.flatten(2)[..., None], frames[0].flatten(2)[..., None]
        )
        require(right, f"frames on a grid of {len(grid)} axes do not come back")


def data_without_a_value_are_refused(case: Case) -> None:
    """Where every value of a channel is missing, `fit` raises DataError, or frames can be applied all the same."""
    frames = Frames()
    frames.values[:, :, 1] = torch.nan
    made = cast("Normalizer", case.component).build(METADATA)
    try:
        made.fit(frames)
    except DataError:
        return
    applied = made.apply(Frames().values[0].clone())
    require(
        bool(applied.isfinite().all()), "it learns of a channel without a value, and makes of it what is not finite"
    )


def a_state_of_other_channels_is_refused(case: Case) -> None:
    """What was learnt of another number of channels raises ValueError when it is loaded."""
    two = attrs.evolve(METADATA, channels=METADATA.channels[:2], predicted=METADATA.predicted[:2])
    made = cast("Normalizer", case.component).build(two)
    made.fit(Frames().values[:, :, :2].clone())
    state = dict(made.state_dict())
    if not state:
        raise NotApplicableError("nothing is learnt")
    try:
        cast("Normalizer", case.component).build(METADATA).load_state_dict(state)
    except ValueError:
        return
    require(False, "what was learnt of two channels is taken for three, without a ValueError")


def it_says_whether_it_changes_anything(case: Case) -> None:
    """`changes` is false for a normalizer that leaves frames as they are, and learns nothing, and for no other."""
    frames = Frames()
    made = _fitted(case, frames)
    same = torch.equal(made.apply(frames.values[0].clone()), frames.values[0]) and not made.state_dict()
    said = type(cast("Normalizer", case.component)).changes
    require(said != same, f"changes = {said}, but frames are {'left as they are' if same else 'changed'}")


PROMISES: tuple[Promise, ...] = (
    restore_undoes_apply,
    a_constant_channel_stays_finite,
    missing_values_do_not_count,
    its_state_is_all_that_it_learnt,
    it_pickles,
    type_and_device_are_kept,
    gradients_pass_through_restore,
    any_values_can_be_applied,
    channels_are_kept_apart,
    pieces_do_not_matter,
    summaries_of_parts_teach_the_same,
    what_it_learns_from_stays_as_it_is,
    grids_have_any_number_of_axes,
    data_without_a_value_are_refused,
    a_state_of_other_channels_is_refused,
    it_says_whether_it_changes_anything,
)
