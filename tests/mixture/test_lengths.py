"""Trajectories of one dataset may differ in length: each is read, counted and drawn from to its own end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import attrs
import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from opframe.mixture.source import Source, frames_in_words, left_out, lengths_of, open_source
from opframe.run import assembly, overlaps
from opframe.run.experiment import load_experiment
from opframe_prepared import Prepared
from opframe_registry import Catalog, DataError, Metadata, Window
from opframe_sampling import Balanced, Proportional
from support import assert_same_training, waves, write_padded, write_prepared
from tests.mixture.test_statistics import ignored
from weights_support import Call, command_line


@attrs.frozen
class Ragged:
    """Trajectories that say of every frame which one it is: number n begins with 1000 n."""

    lengths: tuple[int, ...]

    @property
    def metadata(self) -> Metadata:
        return Metadata(
            trajectories=len(self.lengths),
            frames=max(self.lengths),
            lengths=self.lengths,
            grid=(2, 2),
            channels=("u",),
            predicted=("u",),
            parameters={"number": tuple(range(len(self.lengths)))},
        )

    def read(self, trajectory: int, start: int, stop: int) -> NDArray[np.float32]:
        assert 0 <= start < stop <= self.lengths[trajectory]
        frames = 1000 * trajectory + np.arange(start, stop, dtype="f4")
        return np.broadcast_to(frames[:, None, None, None], (stop - start, 1, 2, 2))


def opened(lengths: tuple[int, ...], history: int = 4, frames: int = 1, split: str = "train", **keys: object) -> Source:
    return open_source(Prepared(url="x.h5", label="own", **keys), Ragged(lengths), history, frames, split)


lengths_of_some = st.lists(st.integers(0, 25), min_size=1, max_size=8).map(tuple)


@given(lengths_of_some, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.sets(st.integers(0, 7)))
def test_every_window_lies_in_its_trajectory_and_every_one_that_does_is_reached(
    lengths: tuple[int, ...], history: int, frames: int, stride: int, exclude: set[int]
) -> None:
    exclude = {number for number in exclude if number < len(lengths)}
    thinned = [len(range(0, length, stride)) for length in lengths]
    size = history + frames
    expected = {
        (number, start)
        for number, length in enumerate(thinned)
        for start in range(length - size + 1)
        if number not in exclude
    }
    try:
        source = opened(lengths, history, frames, stride=stride, exclude=tuple(exclude))
    except DataError:
        assert not expected
        return
    population = source.population(size)
    assert min(population.starts) >= 1
    reached = [(index, start) for index, count in enumerate(population.starts) for start in range(count)]
    assert [(source.number(index), start) for index, start in reached] == sorted(expected)
    assert source.metadata.parameters["number"] == tuple(
        source.number(index) for index in range(len(population.starts))
    )
    for index, start in reached:
        values = source.read(index, start, start + size)[:, 0, 0, 0]
        assert values.tolist() == [1000 * source.number(index) + stride * (start + frame) for frame in range(size)]


def test_what_is_too_short_for_a_window_is_left_out_and_named() -> None:
    trained = opened((7, 3, 30, 4, 12, 30), frames=4, exclude=(2,))
    assert [trained.number(index) for index in range(trained.metadata.trajectories)] == [4, 5]
    assert (trained.metadata.lengths, trained.short) == ((12, 30), (0, 1, 3))
    tested = opened((4, 5, 9), split="test")
    assert left_out([trained], [tested]) == [
        "own: training without 1 of 6 trajectories: 2",
        "own: training without 3 of 6 trajectories: 0, 1, 3, too short for a window",
        "own: evaluated without 1 of 3 trajectories: 0, which end with the history or before",
    ]
    with pytest.raises(DataError, match=r"own: trajectories have at most 7 frames, but a window takes 8"):
        opened((7, 3, 30), frames=4, exclude=(2,))


def test_a_roll_out_goes_to_the_end_of_each_trajectory_at_most() -> None:
    whole, cut = opened((7, 12, 30), split="test"), opened((7, 12, 30), split="test", rollout=5)
    assert (whole.rollout, [whole.rollout_of(index) for index in range(3)]) == (26, [3, 8, 26])
    assert (cut.rollout, [cut.rollout_of(index) for index in range(3)]) == (5, [3, 5, 5])
    with pytest.raises(DataError, match=r"rollout = 27 after 4 frames .* takes 31 .* trajectories have at most 30"):
        opened((7, 12, 30), split="test", rollout=27)
    assert opened((7, 12), rollout=20).rollout == 8  # those that are evaluated may be longer


def test_metadata_say_one_thing_in_one_way() -> None:
    ragged = Ragged((7, 12, 30)).metadata
    assert (lengths_of(ragged), frames_in_words(ragged)) == ((7, 12, 30), "7 to 30 frames")
    alike = attrs.evolve(ragged, lengths=(30, 30, 30))
    assert (alike.lengths, lengths_of(alike), frames_in_words(alike)) == ((), (30,) * 3, "30 frames")
    assert opened((7, 12, 12), frames=8).metadata.lengths == ()
    for wrong in ((7, 12), (7, 12, 29), (-1, 12, 30)):
        with pytest.raises(ValueError, match="lengths has"):
            attrs.evolve(ragged, lengths=wrong)


@pytest.mark.parametrize("sampler", [Balanced(), Proportional()], ids=lambda sampler: sampler.name)
def test_samplers_draw_windows_that_can_be_read(sampler: Balanced | Proportional) -> None:
    sources = [opened((7, 12, 30, 2)), opened((20, 20)), opened((5, 40))]
    order = sampler.build([source.population(5) for source in sources])
    drawn = {window for step in range(300) for window in order(3, step, 32)}
    for window in drawn:
        sources[window.dataset].read(window.trajectory, window.start, window.start + 5)
    assert {Window(0, 0, 2), Window(0, 2, 25), Window(2, 0, 0), Window(2, 1, 35)} <= drawn


LENGTHS = (7, 12, 30, 4, 9, 30, 7, 12)


@pytest.fixture
def ragged(experiment: Path) -> Path:
    """The small experiment, of whose first dataset the trajectories differ in length; the last three are tested on."""
    write_padded(experiment.parent / "one.h5", LENGTHS)
    text = experiment.read_text().replace('url = "one.h5"\ntest = 2', 'url = "one.h5"\ntest = 3\nrollout = 3')
    experiment.write_text(text)
    return experiment


@pytest.fixture
def opframe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return command_line(monkeypatch, capsys)


def test_statistics_are_of_all_frames_that_are_there(ragged: Path, catalog: Catalog) -> None:
    experiment = load_experiment(
        ragged, catalog, ["data.normalization=dataset", f"data.cache={ragged.parent / 'cache'}"]
    )
    assembly.prepare_data(experiment, ignored)
    known = assembly.open_sources(experiment).train[0].normalization
    values = waves(8, 30, 16)
    used = np.concatenate([values[n, ..., : LENGTHS[n], :].ravel() for n in (0, 1, 2, 4)]).astype("f8")
    assert known is not None
    state = known.state_dict()
    assert (state["mean"].item(), state["deviation"].item()) == pytest.approx((used.mean(), used.std()), rel=1e-9)


def test_trajectories_that_begin_alike_are_compared_in_the_last_frame_that_both_have(
    ragged: Path, catalog: Catalog
) -> None:
    data = waves(8, 30, 16)
    data[5], data[6] = data[2], data[2]
    data[6, :, :, 11:] *= -1  # the same in its first 11 frames of 12
    data[7, :, :, 1:] = data[1, :, :, 1:]
    data[7, :, :, 0] = data[0, :, :, 0]
    with h5py.File(write_prepared(ragged.parent / "one.h5", data), "r+") as file:
        file["lengths"] = np.array([7, 12, 30, 4, 9, 20, 12, 7])
    experiment = load_experiment(ragged, catalog, [f"data.cache={ragged.parent / 'cache'}"])
    same, other = overlaps.with_test(experiment, assembly.open_sources(experiment), ignored)
    assert (same.same, same.trajectories, same.training_trajectories) == (True, (0,), (2,))
    assert (other.same, other.trajectories, other.training_trajectories) == (False, (1, 2), (0, 2))


def test_a_run_on_trajectories_of_different_lengths_resumes_to_the_bit(ragged: Path, opframe: Call) -> None:
    checked = opframe("check", ragged)
    assert checked.code == 0, checked.errors
    assert "one: 4 trajectories of 7 to 30 frames, grid 16x16" in checked.output
    done = opframe("run", ragged)
    assert done.code == 0, done.errors
    assert "one: training without 1 of 5 trajectories: 3, too short for a window" in done.output
    report = json.loads((ragged.parent / "run" / "report.json").read_text())
    assert [item["trajectories"] for item in report["datasets"]] == [3, 2]
    assert all(np.isfinite(item["scores"]["model"]["full"]) for item in report["datasets"])
    shutil.move(ragged.parent / "run", ragged.parent / "straight")
    assert "stopped at step 4, saved" in opframe("run", ragged, "--stop-at", 4).output
    assert opframe("run", ragged, "--resume", "--set", "data.workers=2").code == 0
    assert_same_training(ragged.parent / "run", ragged.parent / "straight", 8)
